"""The strict binder: the tensors of a checkpoint against those that its config asks for.

One tensor missing, extra, or of another dtype or shape refuses the whole checkpoint before any
weight is read. Checkpoints that are whole but of another kind (FP8 or NVFP4 experts, transformers'
names) are told apart here from the tensors, since a config may omit `expert_dtype`. Draft tensors
(`mtp.*`) are neither required nor judged: nothing binds them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from isobath.config import ModelConfig
from isobath.errors import BindError, UnsupportedCheckpoint
from isobath.model.inventory import DRAFT_PREFIX, TensorSpec, tensors
from isobath.model.revision import refuse_fp8_experts

SHOWN = 4
"""Tensors named in a message before it goes on with a count."""


def bind(
    config: ModelConfig,
    found: Mapping[str, TensorSpec],
    *,
    where: str,
    label: Callable[[str], str] = str,
) -> dict[str, TensorSpec]:
    """The tensors to load, in the order of the forward pass, once `found` is exactly right.

    found: every tensor of the checkpoint. where: its folder. label: a tensor's name with its file.
    Raises UnsupportedCheckpoint for another kind of checkpoint, BindError for anything else.
    """
    refuse_other_formats(found, where)
    expected = {n: s for n, s in tensors(config).items() if not n.startswith(DRAFT_PREFIX)}
    present = {n: s for n, s in found.items() if not n.startswith(DRAFT_PREFIX)}
    wrong = [name for name, spec in expected.items() if present.get(name, spec) != spec]
    missing = [name for name in expected if name not in present]
    extra = [name for name in present if name not in expected]
    if wrong or missing or extra:
        lines = _first(
            wrong, lambda n: f"tensor {label(n)}: expected {expected[n]}, found {present[n]}"
        )
        lines += _first(missing, lambda n: f"missing {n}{_near(n, extra)}")
        lines += _first(extra, lambda n: f"unexpected {label(n)}{_near(n, missing)}")
        raise BindError(
            lines[0] if lines[0].startswith("tensor") else f"{where}: {lines[0]}",
            found="\n    ".join(
                [
                    f"{len(wrong)} tensors of another shape or dtype, {len(missing)} missing, "
                    f"{len(extra)} unexpected, of {len(expected)} that config.json asks for",
                    *lines[1:],
                ]
            ),
            effect="weights would be misread or left at random values, so nothing was loaded",
            do="take config.json and the weights from the same revision",
        )
    return expected


def refuse_other_formats(found: Mapping[str, TensorSpec], where: str) -> None:
    """Raise UnsupportedCheckpoint when the tensors show another kind of checkpoint."""
    if any(name.startswith("model.layers.") for name in found):
        raise UnsupportedCheckpoint(
            f"{where}: the tensors have transformers' names (model.layers...)",
            effect="its experts are stacked and its quantisation is unknown",
            do="use the checkpoint in its published form",
        )
    for name, spec in found.items():
        if name.endswith((".weight_scale_2", ".input_scale", ".weight_scale")):
            raise UnsupportedCheckpoint(
                f"{where}: this is an NVFP4 re-pack or another requantised checkpoint ({name})",
                effect="isobath reads MXFP4 experts, with UE8M0 scales per 32",
                do="use deepseek-ai/DeepSeek-V4-Flash or DeepSeek-V4-Flash-0731",
            )
        if ".ffn.experts." in name and name.endswith(".weight") and spec.dtype.startswith("F8"):
            refuse_fp8_experts(where, f"{name} is {spec}")
        if name.endswith((".scale", ".weight_scale_inv")) and spec.dtype == "F32":
            raise UnsupportedCheckpoint(
                f"{where}: {name} is F32, so this is Flash-Base or a re-pack with fp32 scales",
                effect="isobath reads UE8M0 scales, one byte a block",
                do="use deepseek-ai/DeepSeek-V4-Flash or DeepSeek-V4-Flash-0731",
            )


def _near(name: str, candidates: list[str]) -> str:
    """Points at a likely misspelling; looks at the first candidates only, for there may be 1e5."""
    near = difflib.get_close_matches(name, candidates[:500], n=1, cutoff=0.8)
    return f" (near {near[0]})" if near else ""


def _first(names: list[str], describe: Callable[[str], str]) -> list[str]:
    more = len(names) - SHOWN
    return [describe(n) for n in names[:SHOWN]] + ([f"... and {more} more"] if more > 0 else [])
