"""Damaged files are found before a weight is read; messages name the file and the tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from isobath.errors import CheckpointError, CorruptCheckpoint
from isobath.model.binder import bind
from isobath.model.load import load
from isobath.model.revision import parse_config
from isobath.model.shards import INDEX, SINGLE, open_shards
from isobath.model.writer import write_checkpoint
from isobath.numerics.dialect import OCP
from isobath.ops import table
from tests.support.checkpoints import random_checkpoint

Header = dict[str, Any]


def split(file: Path) -> tuple[Header, bytes]:
    blob = file.read_bytes()
    end = 8 + int.from_bytes(blob[:8], "little")
    return json.loads(blob[8:end]), blob[end:]


def join(file: Path, header: Header | str, data: bytes) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def edit(change: Callable[[Header], Any]) -> Callable[[Path], None]:
    """A damage that rewrites the header and leaves the data as it is."""

    def damage(file: Path) -> None:
        header, data = split(file)
        change(header)
        join(file, header, data)

    return damage


def swap_offsets(header: Header) -> None:
    """Makes `norm.weight` claim the bytes of `embed.weight`."""
    begin = header["embed.weight"]["data_offsets"][0]
    size = header["norm.weight"]["data_offsets"]
    header["norm.weight"]["data_offsets"] = [begin, begin + size[1] - size[0]]


def duplicate(file: Path) -> None:
    header, data = split(file)
    text = json.dumps(header)
    join(file, text[:-1] + ', "norm.weight": ' + json.dumps(header["norm.weight"]) + "}", data)


NORM = "tensor norm.weight"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda f: f.write_bytes(b""), "the file is truncated.*0 bytes"),
    "cut_data": (lambda f: f.write_bytes(f.read_bytes()[:-1]), "lies outside the file.*truncated"),
    "cut_header": (lambda f: f.write_bytes(f.read_bytes()[:100]), "header is longer than the file"),
    "garbage": (
        lambda f: f.write_bytes(b"\x93NUMPY\x01\x00" * 99),
        "header is longer than the fil",
    ),
    "bad_json": (lambda f: join(f, "{'a': 1}", b""), "the header is not JSON"),
    "not_utf8": (lambda f: f.write_bytes(b"\x02" + bytes(7) + b"\xff\xfe"), "is not JSON"),
    "no_object": (lambda f: join(f, "[1]", b""), "the header is not a JSON object"),
    "appended": (lambda f: f.write_bytes(f.read_bytes() + b"\0"), "1 bytes follow the last tensor"),
    "twice": (duplicate, "norm.weight is there twice"),
    "overlap": (edit(swap_offsets), "overlaps|lies outside"),
    "no_offsets": (edit(lambda h: h["norm.weight"].pop("data_offsets")), f"{NORM} has no valid"),
    "no_shape": (edit(lambda h: h["norm.weight"].update(shape="128")), f"{NORM} has no valid"),
    "negative": (edit(lambda h: h["norm.weight"].update(shape=[-128])), f"{NORM} has no valid"),
    "text": (edit(lambda h: h.update({"norm.weight": "BF16"})), f"{NORM} has no valid"),
    "dtype": (edit(lambda h: h["norm.weight"].update(dtype="F7")), f"{NORM} has an unknown dtype"),
    "no_dtype": (edit(lambda h: h["norm.weight"].update(dtype=[])), f"{NORM} has an unknown dtype"),
    "size": (edit(lambda h: h["norm.weight"].update(shape=[127])), f"{NORM} is .127. BF16, which"),
    "hole": (edit(lambda h: h.pop("norm.weight")), "leaves a gap after|follow the last"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_to_a_file_is_caught_and_named(name: str, tmp_path: Path) -> None:
    random_checkpoint(tmp_path, compress_ratios=[0], n_routed_experts=3)
    damage, sentence = DAMAGE[name]
    damage(tmp_path / SINGLE)
    with pytest.raises(CorruptCheckpoint, match=f"(?s)^{tmp_path / SINGLE}: .*({sentence})"):
        load(
            tmp_path,
            numerics="native",
            dialect=OCP,
            device=torch.device("cpu"),
            ops=table.bind("reference"),
        )


def test_a_file_cut_anywhere_is_caught(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, compress_ratios=[0], n_routed_experts=3)
    file = tmp_path / SINGLE
    blob = file.read_bytes()
    for size in [*range(0, 64), *range(64, len(blob), len(blob) // 100), len(blob) - 1]:
        file.write_bytes(blob[:size])
        with pytest.raises(CorruptCheckpoint, match=str(file)):
            open_shards(tmp_path)


def test_a_flipped_header_bit_never_passes_for_another_tensor(tmp_path: Path) -> None:
    """It is an error of ours, or it was in a byte that says nothing (metadata, padding)."""
    config = parse_config(
        random_checkpoint(tmp_path, compress_ratios=[0], n_routed_experts=3), where="x"
    )
    file = tmp_path / SINGLE
    blob = bytearray(file.read_bytes())
    whole = open_shards(tmp_path).entries
    caught = passed = 0
    for at in range(0, 8 + int.from_bytes(blob[:8], "little"), 5):
        bit = 1 << at % 8
        blob[at] ^= bit
        file.write_bytes(blob)
        blob[at] ^= bit
        try:
            shards = open_shards(tmp_path)
            bind(config, shards.specs(), where="x")
        except CheckpointError:
            caught += 1
        else:
            assert shards.entries == whole, f"bit {bit} of byte {at}"
            passed += 1
    assert caught > 20 * passed > 0


def change_index(folder: Path, change: Callable[[Header], Any]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


FIRST = "model-00001-of-00003.safetensors"
LAST = "model-00003-of-00003.safetensors"
INDEX_DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing_file": (
        lambda d: (d / LAST).unlink(),
        f"{INDEX}: .* is in {LAST}, which does not exist",
    ),
    "missing_tensor": (
        lambda d: change_index(d, lambda i: i["weight_map"].update(ghost=FIRST)),
        f"{FIRST}: tensor ghost is missing from its shard",
    ),
    "moved_tensor": (
        lambda d: change_index(d, lambda i: i["weight_map"].update({"embed.weight": LAST})),
        "tensor embed.weight is (missing from its shard|not listed in the index for this file)",
    ),
    "unlisted_tensor": (
        lambda d: change_index(d, lambda i: i["weight_map"].pop("embed.weight")),
        f"{FIRST}: tensor embed.weight is not listed.*not listed at all",
    ),
    "outside": (
        lambda d: change_index(d, lambda i: i["weight_map"].update(x="../y.safetensors")),
        f"{INDEX}: x is in '../y.safetensors', which is not a safetensors file of this folder",
    ),
    "no_map": (
        lambda d: (d / INDEX).write_text("{}"),
        f"{INDEX}: weight_map must map tensor names to files",
    ),
    "bad_json": (lambda d: (d / INDEX).write_text("{"), f"{INDEX}: cannot be read as JSON"),
    "list": (lambda d: (d / INDEX).write_text("[]"), f"{INDEX}: expected a JSON object"),
    "no_index": (lambda d: (d / INDEX).unlink(), f"there is neither {SINGLE} nor {INDEX}"),
    "both": (lambda d: (d / SINGLE).write_bytes(b""), f"there are both {SINGLE} and {INDEX}"),
}


def tensors_of_three_shards() -> dict[str, torch.Tensor]:
    """Two of 512 bytes for each shard of 1024."""
    return {
        f"{n}.{part}": torch.randn(16, 8)
        for n in ("embed", "norm", "head")
        for part in ("weight", "more")
    }


@pytest.mark.parametrize("name", INDEX_DAMAGE)
def test_an_index_that_does_not_fit_its_shards_is_caught(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {}, tensors_of_three_shards(), shard_bytes=1024)
    damage, sentence = INDEX_DAMAGE[name]
    damage(tmp_path)
    with pytest.raises(CorruptCheckpoint, match=f"(?s)^{tmp_path}.*{sentence}"):
        open_shards(tmp_path)


def test_a_tensor_in_two_shards_is_caught(tmp_path: Path) -> None:
    tensors = tensors_of_three_shards()
    write_checkpoint(tmp_path, {}, tensors, shard_bytes=1024)
    doubled = {n: t for n, t in tensors.items() if n != "norm.more" and n[0] != "h"}
    write_checkpoint(tmp_path / "x", {}, doubled)
    (tmp_path / "x" / SINGLE).replace(tmp_path / FIRST)
    with pytest.raises(CorruptCheckpoint, match=r"norm\.weight .*\n.*so there are two of it"):
        open_shards(tmp_path)


@pytest.mark.parametrize("shard_bytes", [None, 1, 3000, 10**9])
def test_safetensors_reads_what_we_write_and_we_read_it_back(
    shard_bytes: int | None, tmp_path: Path
) -> None:
    """The outside authority on the file format is the safetensors package."""
    tensors = {
        "a": torch.randn(7, 5).to(torch.bfloat16),
        "b": torch.randn(3),
        "c": torch.randint(-9, 9, (2, 3)),
        "d": torch.randint(-9, 9, (5,), dtype=torch.int8),
        "e": torch.zeros(0, 4),
        "f": torch.tensor(2.5),
    }
    write_checkpoint(tmp_path, {"x": 1}, tensors, shard_bytes=shard_bytes)
    theirs: dict[str, torch.Tensor] = {}
    for file in tmp_path.glob("*.safetensors"):
        theirs |= load_file(file)
    shards = open_shards(tmp_path)
    assert theirs.keys() == set(shards.entries) == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(theirs[name], tensor) and theirs[name].dtype == tensor.dtype
        mine = shards.read(name)
        assert torch.equal(mine.view(tensor.dtype), tensor) and mine.shape == tensor.shape
        assert shards.entries[name].start % tensor.itemsize == 0, f"{name} is not aligned"
    assert json.loads((tmp_path / "config.json").read_text()) == {"x": 1}
    if shard_bytes is not None:
        index = json.loads((tmp_path / INDEX).read_text())
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
        sizes = [
            sum(t.nbytes for t in load_file(tmp_path / f).values())
            for f in set(index["weight_map"].values())
        ]
        assert all(size <= max(shard_bytes, 70) for size in sizes)


def test_unaligned_tensors_are_read(tmp_path: Path) -> None:
    """The format allows a float32 tensor at an odd byte; torch views do not."""
    join(
        tmp_path / SINGLE,
        {
            "a": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
        },
        b"\x07" + torch.tensor([1.5, -2.0]).numpy().tobytes(),
    )
    assert open_shards(tmp_path).read("b").tolist() == [1.5, -2.0]


def test_a_write_that_fails_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    old = {"a": torch.ones(3)}
    write_checkpoint(tmp_path, {"old": 1}, old)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_checkpoint(tmp_path, {"new": object()}, {"a": torch.zeros(3)})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
