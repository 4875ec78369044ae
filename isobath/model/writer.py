"""Writes a checkpoint in the published DeepSeek-V4 form: config.json and safetensors files.

FP8 bytes on disk are always OCP (an FNUZ tensor is transcoded back, exactly or not at all), FP4
codes are I8, scales F8_E8M0 beside their weight as `X.scale`. A file appears under its own name
only when all files are complete. The header is written here rather than by the safetensors package
so that tensors stream to disk one at a time and every torch version can store every dtype.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from isobath.errors import CheckpointError
from isobath.model.inventory import DTYPE_BYTES, TensorSpec
from isobath.model.shards import INDEX, SINGLE
from isobath.numerics.dialect import OCP
from isobath.numerics.fp8 import Fp8Tensor
from isobath.numerics.mxfp4 import Mxfp4Tensor
from isobath.numerics.transcode import transcode

Storable = torch.Tensor | Fp8Tensor | Mxfp4Tensor
Write = Callable[[BinaryIO], None]
Shard = dict[str, tuple[TensorSpec, Callable[[], torch.Tensor]]]
"""Per tensor of one file: what it is, and a call that gives a tensor with its bytes."""

_DTYPES = {
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int8: "I8",
}


def write_checkpoint(
    path: str | Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Storable],
    *,
    shard_bytes: int | None = None,
) -> None:
    """Write `config` and `tensors` into the folder `path`, made if absent.

    tensors: by name; a quantised one under "X.weight" also writes "X.scale". shard_bytes: None for
    one model.safetensors, else shards of at most this many bytes (a larger tensor has a shard of
    its own) and an index. Files of the same names are replaced. Raises NumericsError for an FNUZ
    tensor without an OCP counterpart, CheckpointError for a dtype that checkpoints do not have.
    """
    shards = _split(tensors, shard_bytes)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    if shard_bytes is None:
        names = [SINGLE]
    files = dict(zip(names, shards, strict=True))
    writes: list[tuple[str, Write]] = [
        (name, partial(_write_shard, shard)) for name, shard in files.items()
    ]
    if shard_bytes is not None:
        writes.append((INDEX, partial(_write_json, _index(files))))
    writes.append(("config.json", partial(_write_json, dict(config))))
    _write_all(Path(path), writes)


def _write_all(folder: Path, writes: list[tuple[str, Write]]) -> None:
    """Write every file under a temporary name, then give all of them their own."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = [folder / f".{name}.{os.getpid()}.tmp" for name, _ in writes]
    try:
        for file, (_, write) in zip(temporary, writes, strict=True):
            with open(file, "wb") as f:
                write(f)
                f.flush()
                os.fsync(f.fileno())
        for file, (name, _) in zip(temporary, writes, strict=True):
            os.replace(file, folder / name)
    finally:
        for file in temporary:
            file.unlink(missing_ok=True)


def _split(tensors: Mapping[str, Storable], shard_bytes: int | None) -> list[Shard]:
    """Tensors in the given order, in shards of at most `shard_bytes`."""
    shards: list[Shard] = [{}]
    used = 0
    for name, tensor in tensors.items():
        for part, spec, make in _parts(name, tensor):
            if shard_bytes is not None and shards[-1] and used + spec.nbytes > shard_bytes:
                shards.append({})
                used = 0
            shards[-1][part] = (spec, make)
            used += spec.nbytes
    return shards


def _parts(name: str, t: Storable) -> Iterator[tuple[str, TensorSpec, Callable[[], torch.Tensor]]]:
    """The stored tensors that `t` becomes."""
    if isinstance(t, torch.Tensor):
        if t.dtype not in _DTYPES:
            raise CheckpointError(
                f"write_checkpoint: {name} has dtype {t.dtype}",
                found=f"a plain tensor {list(t.shape)}",
                effect="a published checkpoint has no plain tensor of that dtype",
                do="pass quantised weights as Fp8Tensor or Mxfp4Tensor, others as one of "
                + ", ".join(str(d) for d in _DTYPES),
            )
        yield name, TensorSpec(_DTYPES[t.dtype], tuple(t.shape)), lambda: t
        return
    assert name.endswith(".weight"), f"a quantised tensor is called X.weight, not {name}"
    scale = name.removesuffix("weight") + "scale"
    spec = TensorSpec("F8_E8M0", tuple(t.scale.shape))
    if isinstance(t, Mxfp4Tensor):
        yield name, TensorSpec("I8", tuple(t.packed.shape)), lambda: t.packed
        yield scale, spec, lambda: t.scale
    else:
        yield name, TensorSpec("F8_E4M3", tuple(t.shape)), lambda: transcode(t, OCP, name=name).data
        yield scale, spec, lambda: transcode(t, OCP, name=name).scale


def _write_shard(shard: Shard, f: BinaryIO) -> None:
    """One safetensors file: u64 header length, JSON header padded to 8 bytes, then the bytes.

    Wider dtypes come first, so that every tensor is aligned for its own dtype.
    """
    order = sorted(shard, key=lambda name: (-DTYPE_BYTES[shard[name][0].dtype], name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in order:
        spec = shard[name][0]
        header[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.nbytes],
        }
        offset += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    f.write(len(text).to_bytes(8, "little"))
    f.write(text)
    for name in order:
        spec, make = shard[name]
        data = make().detach().contiguous().cpu().reshape(-1).view(torch.uint8)
        assert data.numel() == spec.nbytes, (name, data.numel(), spec)
        f.write(data.numpy().data)


def _index(files: Mapping[str, Shard]) -> dict[str, Any]:
    total = sum(spec.nbytes for shard in files.values() for spec, _ in shard.values())
    where = {name: file for file, shard in files.items() for name in shard}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}


def _write_json(value: dict[str, Any], f: BinaryIO) -> None:
    f.write((json.dumps(value, indent=2) + "\n").encode())
