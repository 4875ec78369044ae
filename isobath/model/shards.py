"""Reads safetensors files: headers first and completely, then tensors as views of mapped memory.

Every header, offset and size is checked before a byte of weight is touched, so a damaged download
is found in a second and nothing is ever half loaded. The header is parsed here because messages
must name the file and the tensor. What the tensors should be is binder.py's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from isobath.errors import CorruptCheckpoint
from isobath.model.inventory import DTYPE_BYTES, TensorSpec

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH_DTYPES = {
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "I64": torch.int64,
    "I8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.uint8,
}
"""Stored dtype -> the dtype that isobath reads it as: packed FP4 codes and UE8M0 bytes as uint8."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor is. start: its first byte, counted from the start of the file."""

    file: Path
    spec: TensorSpec
    start: int


@dataclass(frozen=True, slots=True)
class Shards:
    """The weight files of a checkpoint. maps: one mapping of each whole file, made when read."""

    entries: Mapping[str, Entry]
    maps: dict[Path, torch.Tensor]

    def specs(self) -> dict[str, TensorSpec]:
        """Name -> dtype and shape of every tensor in the files."""
        return {name: entry.spec for name, entry in self.entries.items()}

    def label(self, name: str) -> str:
        """`name` and its file, for messages."""
        return f"{name} ({self.entries[name].file})"

    def read(self, name: str) -> torch.Tensor:
        """The tensor `name` as a CPU view of the mapped file, in its TORCH_DTYPES dtype.

        Nothing is read until it is used. Callers must not write to it.
        """
        entry = self.entries[name]
        if entry.file not in self.maps:
            self.maps[entry.file] = torch.from_file(
                str(entry.file), shared=False, size=entry.file.stat().st_size, dtype=torch.uint8
            )
        data = self.maps[entry.file][entry.start : entry.start + entry.spec.nbytes]
        dtype = TORCH_DTYPES[entry.spec.dtype]
        if entry.start % dtype.itemsize:
            data = data.clone()  # the format does not align tensors, torch insists on it
        return data.view(dtype).view(entry.spec.shape)


def open_shards(path: str | Path) -> Shards:
    """Read and check all headers of the checkpoint folder `path`; raises CorruptCheckpoint."""
    folder = Path(path)
    index, single = folder / INDEX, folder / SINGLE
    if index.exists() and single.exists():
        _corrupt(
            f"{folder}: there are both {SINGLE} and {INDEX}",
            "two sets of weights",
            "either could be the stale one",
            "remove the one that does not belong to this revision",
        )
    if single.exists():
        return Shards(read_header(single), {})
    weight_map = read_index(index)
    entries: dict[str, Entry] = {}
    for file in sorted(set(weight_map.values())):
        listed = {name for name, f in weight_map.items() if f == file}
        entries.update(_shard(folder / file, listed, weight_map))
    return Shards(entries, {})


def _shard(file: Path, listed: set[str], weight_map: Mapping[str, str]) -> dict[str, Entry]:
    """The entries of one shard, which must be those that the index lists for it."""
    if not file.exists():
        _corrupt(
            f"{file.parent / INDEX}: {sorted(listed)[0]} is in {file.name}, which does not exist",
            f"{len(listed)} tensors listed for the missing file",
            "the model would lack them",
            "finish the download",
        )
    entries = read_header(file)
    for name in sorted(listed - set(entries)):
        _corrupt(
            f"{file}: tensor {name} is missing from its shard",
            f"{len(listed - set(entries))} of {len(listed)} listed tensors are not in the file",
            "the model would lack it",
            "download the shard and the index from the same revision",
        )
    for name in sorted(set(entries) - listed):
        other = weight_map.get(name)
        _corrupt(
            f"{file}: tensor {name} is not listed in the index for this file",
            f"listed for {other}, so there are two of it" if other else "not listed at all",
            "it is unknown which revision it belongs to",
            "download the shard and the index from the same revision",
        )
    return entries


def read_index(file: Path) -> dict[str, str]:
    """The weight map (tensor -> file name) of an index; raises CorruptCheckpoint."""
    weight_map = read_index_json(file).get("weight_map")
    right = isinstance(weight_map, dict) and all(isinstance(v, str) for v in weight_map.values())
    if not right or not weight_map:
        _corrupt(f"{file}: weight_map must map tensor names to files", repr(weight_map)[:80])
    for name, target in weight_map.items():
        if Path(target).name != target or not target.endswith(".safetensors"):
            _corrupt(
                f"{file}: {name} is in {target!r}, which is not a safetensors file of this folder",
                effect="a file outside the checkpoint would be read",
                do="download the index again",
            )
    return dict(weight_map)


def read_index_json(file: Path) -> dict[str, Any]:
    """The whole index; raises CorruptCheckpoint, naming a tensor that is listed twice."""
    try:
        value = json.loads(file.read_bytes(), object_pairs_hook=_no_duplicates)
    except FileNotFoundError:
        present = ", ".join(sorted(p.name for p in file.parent.glob("*"))[:8])
        _corrupt(
            f"{file.parent}: there is neither {SINGLE} nor {INDEX}",
            present or "an empty or missing folder",
            "there are no weights to load",
            "pass the folder of a DeepSeek-V4 checkpoint",
        )
    except (OSError, ValueError) as error:
        _corrupt(f"{file}: cannot be read as JSON", str(error))
    if not isinstance(value, dict):
        _corrupt(f"{file}: expected a JSON object", type(value).__name__)
    return dict(value)


def read_header(file: Path) -> dict[str, Entry]:
    """Name -> Entry of every tensor in one safetensors file; raises CorruptCheckpoint."""
    size = file.stat().st_size
    with open(file, "rb") as f:
        prefix = f.read(8)
        if len(prefix) < 8:
            _corrupt(f"{file}: the file is truncated", f"{size} bytes, not even a header length")
        length = int.from_bytes(prefix, "little")
        if 8 + length > size:
            _corrupt(
                f"{file}: the header is longer than the file",
                f"a header of {length} bytes in a file of {size}",
            )
        text = f.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
    except ValueError as error:
        _corrupt(f"{file}: the header is not JSON", str(error))
    if not isinstance(header, dict):
        _corrupt(f"{file}: the header is not a JSON object", type(header).__name__)
    header.pop("__metadata__", None)
    entries = {name: _entry(file, name, value, 8 + length) for name, value in header.items()}
    _check_extents(file, entries, 8 + length, size)
    return entries


def _entry(file: Path, name: str, value: Any, data_start: int) -> Entry:
    """One tensor of a header, its fields checked on their own."""
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        right = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        right = False
    if not right:
        _corrupt(f"{file}: tensor {name} has no valid dtype, shape and offsets", repr(value)[:120])
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        _corrupt(
            f"{file}: tensor {name} has an unknown dtype",
            repr(dtype),
            "its size is unknown, and so is where the next tensor starts",
            "use the checkpoint in its published form; if it is that, download the file again",
        )
    spec = TensorSpec(dtype, tuple(shape))
    if end - begin != spec.nbytes:
        _corrupt(
            f"{file}: tensor {name} is {spec}, which takes {spec.nbytes} bytes",
            f"offsets {begin} to {end}, {end - begin} bytes",
        )
    return Entry(file, spec, data_start + begin)


def _check_extents(file: Path, entries: Mapping[str, Entry], start: int, size: int) -> None:
    """Tensors must lie end to end from the header to the end of the file."""
    expected, previous = start, "the header"
    for name, entry in sorted(entries.items(), key=lambda e: (e[1].start, e[1].spec.nbytes)):
        if entry.start != expected:
            relation = "overlaps" if entry.start < expected else "leaves a gap after"
            _corrupt(
                f"{file}: tensor {name} {relation} {previous}",
                f"it starts at byte {entry.start}, {previous} ends at {expected}",
            )
        expected, previous = entry.start + entry.spec.nbytes, name
        if expected > size:
            _corrupt(
                f"{file}: tensor {name} lies outside the file, which is truncated",
                f"it ends at byte {expected}, the file at {size}",
            )
    if expected != size:
        _corrupt(
            f"{file}: {size - expected} bytes follow the last tensor, {previous}",
            f"the header describes {expected} bytes, the file has {size}",
        )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise ValueError(f"{name} is there twice")
        value[name] = item
    return value


def _corrupt(
    asked: str,
    found: str = "",
    effect: str = "its weights cannot be trusted",
    do: str = "download the file again and compare its checksum",
) -> NoReturn:
    raise CorruptCheckpoint(asked, found=found, effect=effect, do=do)
