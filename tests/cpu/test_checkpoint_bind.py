"""One tensor of another name, shape, dtype or impossible value refuses the whole checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isobath.errors import (
    BindError,
    CheckpointError,
    CorruptCheckpoint,
    NumericsError,
    UnsupportedCheckpoint,
)
from isobath.model.load import load
from isobath.model.shards import SINGLE
from isobath.model.writer import Storable, write_checkpoint
from isobath.numerics import FNUZ, OCP, Dialect, quantize
from isobath.ops.table import bind
from tests.support.checkpoints import random_tensors, small_config

CPU = torch.device("cpu")


def read(path: Path, dialect: Dialect, numerics: str = "native") -> None:
    load(path, numerics=numerics, dialect=dialect, device=CPU, ops=bind("reference"))


Change = Callable[[dict[str, Storable]], Any]
A = "layers.0.attn."


def replaced(name: str, tensor: Storable) -> Change:
    return lambda t: t.update({name: tensor})


def renamed(old: str, new: str) -> Change:
    return lambda t: t.update({new: t.pop(old)})


BAD_TENSORS: dict[str, tuple[Change, type[CheckpointError], str]] = {
    "dtype": (
        replaced(A + "wq_a.weight", torch.zeros(128, 128, dtype=torch.bfloat16)),
        BindError,
        rf"^tensor {A}wq_a.weight \(.*{SINGLE}\): expected \[128, 128\] F8_E4M3, found "
        r"\[128, 128\] BF16",
    ),
    "swapped_shape": (
        replaced(A + "compressor.ape", torch.zeros(64, 128)),
        BindError,
        rf"tensor {A}compressor.ape \(.*{SINGLE}\): expected \[128, 64\] F32, found \[64, 128\]",
    ),
    "missing": (
        lambda t: t.pop("norm.weight"),
        BindError,
        r"missing norm.weight\n  found: 0 tensors of another shape or dtype, 1 missing, 0 unexp",
    ),
    "extra": (
        replaced("layers.0.attn.rotary.inv_freq", torch.zeros(4)),
        BindError,
        rf"unexpected layers.0.attn.rotary.inv_freq \(.*{SINGLE}\)",
    ),
    "renamed": (
        renamed(A + "q_norm.weight", A + "qnorm.weight"),
        BindError,
        rf"missing {A}q_norm.weight \(near {A}qnorm.weight\)",
    ),
    "layer_missing": (
        lambda t: [t.pop(n) for n in list(t) if n.startswith("layers.1.")],
        BindError,
        r"missing layers.1.*\.\.\. and \d+ more",
    ),
    "layer_extra": (
        lambda t: t.update({n.replace("layers.1", "layers.2"): t[n] for n in list(t)}),
        BindError,
        r"\d+ unexpected",
    ),
    "fp8_experts": (
        replaced(
            "layers.1.ffn.experts.0.w1.weight", quantize(torch.ones(128, 128), OCP, (128, 128))
        ),
        UnsupportedCheckpoint,
        "routed experts are not MXFP4 .layers.1.ffn.experts.0.w1.weight is .*Flash-Base",
    ),
    "nvfp4": (
        replaced("layers.1.ffn.experts.0.w1.weight_scale_2", torch.zeros(1)),
        UnsupportedCheckpoint,
        "NVFP4 re-pack",
    ),
    "fp32_scales": (
        replaced("layers.1.attn.wo_b.weight_scale_inv", torch.zeros(1, 1)),
        UnsupportedCheckpoint,
        "fp32 scales",
    ),
    "transformers": (
        renamed("norm.weight", "model.layers.0.input_layernorm.weight"),
        UnsupportedCheckpoint,
        "transformers' names",
    ),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_one_wrong_tensor_refuses_the_checkpoint_before_anything_is_read(
    name: str, tmp_path: Path
) -> None:
    config = small_config(compress_ratios=[128, 4], expert_dtype=None)
    tensors = random_tensors(config, 0)
    change, error, sentence = BAD_TENSORS[name]
    change(tensors)
    write_checkpoint(tmp_path, config, tensors)
    calls: list[int] = []
    with pytest.raises(error, match=f"(?s){sentence}"):
        load(
            tmp_path,
            numerics="native",
            dialect=OCP,
            device=CPU,
            ops=bind("reference"),
            progress=lambda done, total: calls.append(done),
        )
    assert not calls


def plant_nan(t: dict[str, Storable]) -> None:
    t["layers.1.attn.wo_b.weight"].data.view(torch.uint8)[5, 77] = 0x7F


def plant_scale(name: str, byte: int) -> Change:
    def plant(t: dict[str, Storable]) -> None:
        t[name].scale[0, 0] = byte

    return plant


def plant_expert_id(value: int) -> Change:
    def plant(t: dict[str, Storable]) -> None:
        t["layers.1.ffn.gate.tid2eid"][149, 2] = value

    return plant


WO_A, EXPERT = "layers.0.attn.wo_a", "layers.1.ffn.experts.2.w2"
BAD_VALUES: dict[str, tuple[Change, tuple[Dialect, ...], str]] = {
    "nan_weight": (
        plant_nan,
        (OCP, FNUZ),
        rf"layers.1.attn.wo_b.weight \(.*{SINGLE}\): byte 0x7f at index \[5, 77\] is NaN",
    ),
    "scale_254": (
        plant_scale(f"{WO_A}.weight", 254),
        (FNUZ,),
        rf"{WO_A}.weight \(.*{SINGLE}\) scale: byte 0xfe at index \[0, 0\] has no UE8M0 byte above",
    ),
    "scale_255": (
        plant_scale(f"{WO_A}.weight", 255),
        (OCP, FNUZ),
        rf"{WO_A}.scale \(.*{SINGLE}\): byte 0xff at index \[0, 0\] is NaN",
    ),
    "expert_scale_255": (
        plant_scale(f"{EXPERT}.weight", 255),
        (OCP, FNUZ),
        rf"{EXPERT}.scale \(.*{SINGLE}\): byte 0xff at index \[0, 0\] is NaN",
    ),
    "expert_id_high": (
        plant_expert_id(8),
        (OCP, FNUZ),
        rf"tid2eid \(.*{SINGLE}\): expected expert ids 0 to 7\n.*8 at index \[149, 2\], 1 such",
    ),
    "expert_id_negative": (plant_expert_id(-1), (OCP, FNUZ), r"tid2eid .*\n.*-1 at index"),
}


@pytest.mark.parametrize("numerics", ["native", "exact"])
@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_value_that_cannot_be_right_is_named(name: str, numerics: str, tmp_path: Path) -> None:
    config = small_config(compress_ratios=[0, 4], num_hash_layers=2)
    tensors = random_tensors(config, 0)
    change, dialects, sentence = BAD_VALUES[name]
    change(tensors)
    write_checkpoint(tmp_path, config, tensors)
    for dialect in dialects:
        if numerics == "exact" and name == "scale_254":
            read(tmp_path, dialect, numerics)  # 2**127 is a float32; only FNUZ cannot say it
            continue
        with pytest.raises((NumericsError, CorruptCheckpoint), match=sentence):
            read(tmp_path, dialect, numerics)


def test_scale_254_is_a_value_in_ocp(tmp_path: Path) -> None:
    config = small_config(compress_ratios=[0])
    tensors = random_tensors(config, 0)
    plant_scale(f"{WO_A}.weight", 254)(tensors)
    write_checkpoint(tmp_path, config, tensors)
    read(tmp_path, OCP)
