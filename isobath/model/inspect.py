"""What a checkpoint is, from config.json and headers (or the index alone), without loading it.

Works on a folder that holds only config.json and model.safetensors.index.json, so a model can be
judged before 160 GB are downloaded: sizes then come from the inventory and are checked against the
index's names and total_size. Differences, and a download that has begun but not ended, are
reported as problems; only a checkpoint that isobath does not run raises. Whether it fits a GPU is
plan.py's business (`plan(inspection.config, ...)`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isobath.config import ModelConfig
from isobath.errors import BindError
from isobath.model.binder import bind
from isobath.model.inventory import DRAFT_PREFIX, TensorSpec, parameters, tensor_class, tensors
from isobath.model.revision import read_config
from isobath.model.shards import INDEX, SINGLE, open_shards, read_index, read_index_json
from isobath.numerics.dialect import OCP

FLASH = (43, 4096, 256)
PRO = (61, 7168, 384)
"""Layers, width and experts of the published models."""


@dataclass(frozen=True, slots=True)
class Size:
    """Number of tensors and their bytes on disk."""

    tensors: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """revision: which release, or what else. tensors, bytes: of the whole checkpoint, draft
    included. parameters: of the tensors whose shapes are known. classes: per part of the model.
    draft: "none", "mtp" or "dspark". source: where sizes come from, "headers" or "index".
    files, files_present: weight files that belong to it, and how many are there. problems: what
    would stop it from loading, one sentence each; empty if nothing does."""

    path: str
    revision: str
    tensors: int
    bytes: int
    parameters: int
    classes: dict[str, Size]
    experts: str
    dialect: str
    draft: str
    num_draft_layers: int
    context: int
    source: str
    files: int
    files_present: int
    problems: tuple[str, ...]
    config: ModelConfig

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def inspect(path: str | Path) -> Inspection:
    """Describe the checkpoint folder `path`.

    Raises UnsupportedCheckpoint for a kind that isobath does not run, CorruptCheckpoint when
    config.json and index (or headers) cannot be read, ConfigError for a config without meaning.
    """
    folder = Path(path)
    config = read_config(folder)
    if (folder / SINGLE).exists():
        return _from_headers(folder, config, files=1)
    files = sorted(set(read_index(folder / INDEX).values()))
    present = sum((folder / file).exists() for file in files)
    if present == len(files):
        return _from_headers(folder, config, files=present)
    return _from_index(folder, config, files=len(files), present=present)


def _from_headers(folder: Path, config: ModelConfig, *, files: int) -> Inspection:
    shards = open_shards(folder)
    specs = shards.specs()
    problems = []
    try:
        bind(config, specs, where=str(folder), label=shards.label)
    except BindError as error:
        problems.append(f"{error.asked} ({error.found})")
    sizes = {name: spec.nbytes for name, spec in specs.items()}
    if (folder / INDEX).exists():
        problems += _total_size(folder, sum(sizes.values()))
    return _inspection(folder, config, sizes, specs, ("headers", files, files), problems)


def _from_index(folder: Path, config: ModelConfig, *, files: int, present: int) -> Inspection:
    """Sizes from the inventory; what a DSpark draft weighs is the rest of total_size."""
    names = set(read_index(folder / INDEX))
    expected = tensors(config)
    specs = {name: spec for name, spec in expected.items() if name in names}
    sizes = {name: spec.nbytes for name, spec in specs.items()}
    problems = [f"{present} of {files} weight files are present"] if present else []
    required = {name for name in expected if not name.startswith(DRAFT_PREFIX)}
    for what, odd in (
        ("missing from the index", sorted(required - names)),
        ("unexpected in the index", sorted(n for n in names - set(expected) if not _draft(n))),
    ):
        if odd:
            problems.append(f"{len(odd)} tensors are {what}, the first is {odd[0]}")
    unsized = [name for name in names - set(expected) if _draft(name)]
    if unsized:
        rest = max(_declared_bytes(folder) - sum(sizes.values()), 0)
        sizes |= dict.fromkeys(unsized, 0) | {unsized[0]: rest}
    else:
        problems += _total_size(folder, sum(sizes.values()))
    return _inspection(folder, config, sizes, specs, ("index", files, present), problems)


def _inspection(
    folder: Path,
    config: ModelConfig,
    sizes: dict[str, int],
    specs: dict[str, TensorSpec],
    source: tuple[str, int, int],
    problems: list[str],
) -> Inspection:
    classes: dict[str, list[int]] = defaultdict(list)
    for name, nbytes in sizes.items():
        classes[tensor_class(name)].append(nbytes)
    return Inspection(
        path=str(folder),
        revision=revision_name(config),
        tensors=len(sizes),
        bytes=sum(sizes.values()),
        parameters=parameters(specs),
        classes={name: Size(len(part), sum(part)) for name, part in classes.items()},
        experts="MXFP4",
        dialect=str(OCP),
        draft=config.draft,
        num_draft_layers=config.num_draft_layers,
        context=config.max_position_embeddings,
        source=source[0],
        files=source[1],
        files_present=source[2],
        problems=tuple(problems),
        config=config,
    )


def revision_name(config: ModelConfig) -> str:
    """The release that has this shape and draft, or its dimensions."""
    shape = (config.num_hidden_layers, config.hidden_size, config.n_routed_experts)
    name = {FLASH: "DeepSeek-V4-Flash", PRO: "DeepSeek-V4-Pro"}.get(shape)
    if name is None:
        return "DeepSeek-V4 of {} layers, width {}, {} experts".format(*shape)
    if config.draft == "dspark":
        return f"{name} with DSpark draft (2026-07-31 form)"
    return f"{name} (2026-04-24 form)"


def _draft(name: str) -> bool:
    return name.startswith(DRAFT_PREFIX)


def _declared_bytes(folder: Path) -> int:
    """metadata.total_size of the index, 0 when it declares none."""
    metadata = read_index_json(folder / INDEX).get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return int(total) if isinstance(total, int | float) else 0


def _total_size(folder: Path, counted: int) -> list[str]:
    declared = _declared_bytes(folder)
    if declared in (0, counted):
        return []
    return [f"the index declares {declared:,} bytes, its tensors have {counted:,}"]
