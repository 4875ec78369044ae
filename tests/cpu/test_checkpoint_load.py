"""Loading: every weight is the stored value, in either dialect; one wrong tensor refuses all."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from isobath.config import ModelConfig
from isobath.errors import (
    CheckpointError,
    ConfigError,
)
from isobath.model.load import load
from isobath.model.revision import parse_config
from isobath.model.shards import SINGLE
from isobath.model.weights import ModelWeights
from isobath.model.writer import write_checkpoint
from isobath.numerics import (
    FNUZ,
    OCP,
    Dialect,
    Fp8Tensor,
)
from isobath.ops.experts import ExpertWeights
from isobath.ops.table import bind
from tests.support.checkpoints import (
    dequantized,
    random_checkpoint,
    random_tensors,
    small_config,
)
from tests.support.unfuse import decoded, unfused

CPU = torch.device("cpu")
RATIOS = [0, 4, 128, 4]


def loaded(
    path: Path, dialect: Dialect = OCP, numerics: str = "native"
) -> tuple[ModelConfig, ModelWeights]:
    """With the reference backends, whose `prepare` keeps weights as they are."""
    return load(path, numerics=numerics, dialect=dialect, device=CPU, ops=bind("reference"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    random_checkpoint(
        folder, seed=7, compress_ratios=RATIOS, shard_bytes=400_000, num_hash_layers=2
    )
    return folder


@pytest.mark.parametrize("numerics", ["native", "exact"])
@pytest.mark.parametrize("dialect", [OCP, FNUZ], ids=str)
def test_every_loaded_value_is_the_stored_one(
    checkpoint: Path, dialect: Dialect, numerics: str
) -> None:
    """Bit for bit, judged by a decoder that shares nothing with the loader; -0 may become +0."""
    config, weights = loaded(checkpoint, dialect, numerics)
    got, want = unfused(config, weights), dequantized(checkpoint)
    assert got.keys() == want.keys()
    for name, tensor in got.items():
        values = decoded(tensor)
        assert torch.equal(values.to(want[name].dtype), want[name]), name


@pytest.mark.parametrize("dialect", [OCP, FNUZ], ids=str)
def test_native_weights_keep_their_formats(checkpoint: Path, dialect: Dialect) -> None:
    _, w = loaded(checkpoint, dialect)
    assert (w.dtype, w.dialect) == (torch.bfloat16, dialect)
    assert w.embed.dtype == w.head.dtype == torch.bfloat16
    assert [layer.ratio for layer in w.layers] == RATIOS
    for layer in w.layers:
        for matrix in (layer.attn.wqa_wkv, layer.attn.wo_a, layer.ffn.shared_w13):
            assert isinstance(matrix, Fp8Tensor) and matrix.dialect == dialect
        assert layer.ffn.experts.w13.packed.shape == (8, 256, 64)
        assert layer.ffn.gate.dtype == torch.bfloat16
        assert layer.attn_norm.dtype == layer.attn_hyper.fn.dtype == torch.float32
        assert (layer.attn.compress_in is None) == (layer.ratio == 0)
        assert (layer.attn.indexer is not None) == (layer.ratio == 4)
    assert [layer.ffn.table is not None for layer in w.layers] == [True, True, False, False]
    assert [layer.ffn.bias is not None for layer in w.layers] == [False, False, True, True]
    assert w.layers[0].ffn.table.dtype == torch.int64


def test_exact_weights_are_float32(checkpoint: Path) -> None:
    _, w = loaded(checkpoint, numerics="exact")
    layer = w.layers[1]
    matrices = (w.embed, w.head, layer.attn.wqa_wkv, layer.attn.wo_a, layer.attn.compress_in)
    assert w.dtype == torch.float32
    assert {m.dtype for m in (*matrices, layer.ffn.experts.w2, layer.ffn.gate)} == {torch.float32}


@pytest.mark.parametrize("dialect", [OCP, FNUZ], ids=str)
def test_load_write_load_is_byte_identical(
    checkpoint: Path, dialect: Dialect, tmp_path: Path
) -> None:
    """The first rewrite normalises (float32 norms back to bf16 here; -0 to +0 for FNUZ); from then
    on nothing changes, and for OCP already the first one has the bytes of the original."""
    config, weights = loaded(checkpoint, dialect)
    first = rewritten(config, weights, tmp_path / "first")
    again = rewritten(*loaded(tmp_path / "first", dialect), tmp_path / "again")
    assert first == again
    random_checkpoint(tmp_path / "original", seed=7, compress_ratios=RATIOS, num_hash_layers=2)
    original = (tmp_path / "original" / SINGLE).read_bytes()
    if dialect == OCP:
        assert first == original
    else:
        assert len(first) == len(original)
        got, want = dequantized(tmp_path / "first"), dequantized(checkpoint)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[name], want[name]) for name in want)


def rewritten(config: ModelConfig, weights: ModelWeights, folder: Path) -> bytes:
    tensors = unfused(config, weights)
    for name, t in tensors.items():
        if isinstance(t, torch.Tensor) and name.endswith("norm.weight"):
            tensors[name] = t.to(torch.bfloat16)
    raw = small_config(compress_ratios=RATIOS, num_hash_layers=2)
    assert parse_config(raw, where="x") == config
    write_checkpoint(folder, raw, tensors)
    return (folder / SINGLE).read_bytes()


def test_negative_zero_of_mxfp4_is_cleared_and_of_fp8_too_in_fnuz(tmp_path: Path) -> None:
    config = small_config(compress_ratios=[0])
    tensors = random_tensors(config, 0)
    expert, wq_b = tensors["layers.0.ffn.experts.1.w3.weight"], tensors["layers.0.attn.wq_b.weight"]
    expert.packed[3, 5] = 0x88
    wq_b.data.view(torch.uint8)[2, 9] = 0x80
    write_checkpoint(tmp_path, config, tensors)
    for dialect, byte in ((OCP, 0x80), (FNUZ, 0)):
        _, w = loaded(tmp_path, dialect)
        layer = w.layers[0]
        assert layer.ffn.experts.w13.packed[1, 128 + 3, 5] == 0
        assert layer.attn.wq_b.data.view(torch.uint8)[2, 9] == byte


@dataclass(frozen=True)
class Prepared:
    """What a backend's `prepare` returned: the op it belongs to and the weight it was given."""

    op: str
    weight: Any


def prepared_by(value: Any) -> Any:
    """The op whose `prepare` made `value`; None for a weight that none has seen."""
    return value.op if isinstance(value, Prepared) else None


@pytest.mark.parametrize("numerics", ["native", "exact"])
def test_every_matrix_goes_through_the_prepare_of_the_op_that_reads_it(
    checkpoint: Path, numerics: str
) -> None:
    plain = bind("reference")
    marking = {b.op: replace(b, prepare=partial(Prepared, b.op)) for b in plain}
    _, w = load(
        checkpoint, numerics=numerics, dialect=FNUZ, device=CPU, ops=replace(plain, **marking)
    )
    fp8 = "fp8_linear" if numerics == "native" else "linear"
    for layer in w.layers:
        attn, ffn = layer.attn, layer.ffn
        together = "attention_in" if layer.ratio and numerics == "native" else None
        assert prepared_by(attn.wqa_wkv) == (together or fp8)
        quantised = [attn.wq_b, attn.wo_b]
        quantised += [attn.indexer.wq_b] if attn.indexer else []
        assert {prepared_by(m) for m in quantised} == {fp8}
        assert prepared_by(attn.wo_a) == "grouped_project"
        block = (ffn.gate, ffn.shared_w13, ffn.shared_w2, ffn.experts)
        assert {prepared_by(weight) for weight in block} == {"moe"}
        assert prepared_by(attn.compress_in) == (together or "linear" if layer.ratio else None)
        assert isinstance(ffn.experts.weight, ExpertWeights)
        assert prepared_by(layer.attn_hyper.fn) == prepared_by(layer.ffn_hyper.fn) == "hyper_enter"
        vectors = (layer.attn_norm, layer.ffn_norm, attn.q_norm, attn.sink, layer.attn_hyper.base)
        assert all(type(v) is torch.Tensor for v in vectors)
    assert prepared_by(w.hyper_head.fn) == "hyper_head"
    assert prepared_by(w.head) == "linear" and type(w.embed) is torch.Tensor


def test_a_draft_is_reported_once_and_left_on_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = {"compress_ratios": [0, 4, 0], "num_nextn_predict_layers": 1}
    random_checkpoint(tmp_path, **overrides)
    calls: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO, "isobath"):
        load(
            tmp_path,
            numerics="native",
            dialect=OCP,
            device=CPU,
            ops=bind("reference"),
            progress=lambda done, total: calls.append((done, total)),
        )
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "of the mtp draft" in caplog.text
    dones, totals = zip(*calls, strict=True)
    assert list(dones) == sorted(dones) and dones[-1] == totals[-1] and len(set(totals)) == 1
    assert totals[0] < (tmp_path / SINGLE).stat().st_size * 0.75, "the draft was counted"


def test_an_unknown_numerics_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"native.*exact"):
        loaded(checkpoint, numerics="fast")


def test_the_writer_refuses_dtypes_that_checkpoints_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x\.weight has dtype torch\.float16"):
        write_checkpoint(tmp_path, {}, {"x.weight": torch.zeros(2, dtype=torch.float16)})
    assert not list(tmp_path.iterdir())
