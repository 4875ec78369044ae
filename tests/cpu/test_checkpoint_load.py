"""Loading: every weight is the stored value, in either dialect; one wrong tensor refuses all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isobath.config import ModelConfig
from isobath.errors import (
    BindError,
    CheckpointError,
    ConfigError,
    CorruptCheckpoint,
    NumericsError,
    UnsupportedCheckpoint,
)
from isobath.model.load import load
from isobath.model.revision import parse_config
from isobath.model.shards import SINGLE
from isobath.model.weights import LayerWeights, ModelWeights
from isobath.model.writer import Storable, write_checkpoint
from isobath.numerics import (
    FNUZ,
    OCP,
    WEIGHT_BLOCK,
    Dialect,
    Fp8Tensor,
    Mxfp4Tensor,
    mxfp4,
    quantize,
)
from isobath.numerics.fp8 import dequantize
from isobath.ops.table import bind
from tests.support.checkpoints import (
    dequantized,
    random_checkpoint,
    random_tensors,
    small_config,
)

CPU = torch.device("cpu")
RATIOS = [0, 4, 128, 4]


def loaded(
    path: Path, dialect: Dialect = OCP, numerics: str = "native"
) -> tuple[ModelConfig, ModelWeights]:
    """With the reference backends, whose `prepare` keeps weights as they are."""
    return load(path, numerics=numerics, dialect=dialect, device=CPU, ops=bind("reference"))


def unfused(config: ModelConfig, w: ModelWeights) -> dict[str, Storable]:
    """Published names of everything in `w`, fused matrices cut apart again."""
    out: dict[str, Storable] = {"embed.weight": w.embed, "head.weight": w.head}
    out["norm.weight"] = w.norm
    hyper = {"hc_head": w.hyper_head}
    for i, layer in enumerate(w.layers):
        out |= {f"layers.{i}.{n}": t for n, t in layer_tensors(config, layer).items()}
        hyper |= {f"layers.{i}.hc_attn": layer.attn_hyper, f"layers.{i}.hc_ffn": layer.ffn_hyper}
    for name, mixer in hyper.items():
        for part in ("fn", "base", "scale"):
            out[f"{name}_{part}"] = getattr(mixer, part)
    return out


def layer_tensors(c: ModelConfig, layer: LayerWeights) -> dict[str, Storable]:
    attn, ffn, inner = layer.attn, layer.ffn, c.moe_intermediate_size
    out = cut(attn.wqa_wkv, {"attn.wq_a": c.q_lora_rank, "attn.wkv": c.head_dim})
    out |= {f"attn.{n}.weight": getattr(attn, n) for n in ("wq_b", "wo_a", "wo_b", "q_norm")}
    out |= {"attn.kv_norm.weight": attn.kv_norm, "attn.attn_sink": attn.sink}
    out |= {"attn_norm.weight": layer.attn_norm, "ffn_norm.weight": layer.ffn_norm}
    channels = c.head_dim * (2 if layer.ratio == 4 else 1)
    rows = {"attn.compressor.wkv": channels, "attn.compressor.wgate": channels}
    compressors = {"attn.compressor": attn.compressor}
    if attn.indexer is not None:
        rows["attn.indexer.compressor.wkv"] = rows["attn.indexer.compressor.wgate"] = (
            2 * c.index_head_dim
        )
        rows["attn.indexer.weights_proj"] = c.index_n_heads
        out["attn.indexer.wq_b.weight"] = attn.indexer.wq_b
        compressors["attn.indexer.compressor"] = attn.indexer.compressor
    if layer.ratio:
        out |= cut(attn.compress_in, rows)
        for name, part in compressors.items():
            out |= {f"{name}.ape": part.ape, f"{name}.norm.weight": part.norm}
    out["ffn.gate.weight"] = ffn.gate
    if ffn.bias is not None:
        out["ffn.gate.bias"] = ffn.bias
    if ffn.table is not None:
        out["ffn.gate.tid2eid"] = ffn.table
    out |= cut(
        ffn.shared_w13, dict.fromkeys(("ffn.shared_experts.w1", "ffn.shared_experts.w3"), inner)
    )
    out["ffn.shared_experts.w2.weight"] = ffn.shared_w2
    for e in range(c.n_routed_experts):
        p = f"ffn.experts.{e}."
        out |= cut(part_of(ffn.experts.w13, e), {p + "w1": inner, p + "w3": inner})
        out[p + "w2.weight"] = part_of(ffn.experts.w2, e)
    return out


def part_of(t: Any, e: int) -> Any:
    return Mxfp4Tensor(t.packed[e], t.scale[e]) if isinstance(t, Mxfp4Tensor) else t[e]


def cut(t: Any, rows: dict[str, int]) -> dict[str, Storable]:
    """Consecutive rows of a fused matrix under the names of its parts."""
    out: dict[str, Storable] = {}
    start = 0
    for name, n in rows.items():
        span = slice(start, start + n)
        if isinstance(t, Fp8Tensor):
            blocks = slice(start // 128, -(-(start + n) // 128))
            out[f"{name}.weight"] = Fp8Tensor(
                t.data[span], t.scale[blocks], t.dialect, WEIGHT_BLOCK
            )
        elif isinstance(t, Mxfp4Tensor):
            out[f"{name}.weight"] = Mxfp4Tensor(t.packed[span], t.scale[span])
        else:
            out[f"{name}.weight"] = t[span]
        start += n
    assert start == len(
        t.data if isinstance(t, Fp8Tensor) else t.packed if isinstance(t, Mxfp4Tensor) else t
    )
    return out


def decoded(t: Storable) -> torch.Tensor:
    if isinstance(t, Fp8Tensor):
        return dequantize(t)
    return mxfp4.dequantize(t) if isinstance(t, Mxfp4Tensor) else t


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
    first = rewritten(config, weights, tmp_path / "first", checkpoint)
    again = rewritten(*loaded(tmp_path / "first", dialect), tmp_path / "again", checkpoint)
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


def rewritten(config: ModelConfig, weights: ModelWeights, folder: Path, source: Path) -> bytes:
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


def test_prepare_of_the_backend_sees_every_matrix_once(checkpoint: Path) -> None:
    """The torch backend widens FP8 at load; a matrix that skipped it would still be Fp8Tensor."""
    ops = bind("torch")
    _, w = load(checkpoint, numerics="native", dialect=FNUZ, device=CPU, ops=ops)
    _, plain = loaded(checkpoint, FNUZ)
    kinds = [
        (
            ops.fp8_linear,
            [
                (la.attn.wqa_wkv, pa.attn.wqa_wkv),
                (la.attn.wq_b, pa.attn.wq_b),
                (la.attn.wo_b, pa.attn.wo_b),
                (la.ffn.shared_w13, pa.ffn.shared_w13),
                (la.ffn.shared_w2, pa.ffn.shared_w2),
            ],
        )
        for la, pa in zip(w.layers, plain.layers, strict=True)
    ]
    for op, pairs in kinds:
        for got, source in pairs:
            assert type(got) is type(op.prepare(source)) is not Fp8Tensor
            assert torch.equal(got.values, op.prepare(source).values)


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
    assert [r.levelname for r in caplog.records] == ["INFO"]
    assert "of the mtp draft" in caplog.text
    dones, totals = zip(*calls, strict=True)
    assert list(dones) == sorted(dones) and dones[-1] == totals[-1] and len(set(totals)) == 1
    assert totals[0] < (tmp_path / SINGLE).stat().st_size * 0.75, "the draft was counted"


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
            loaded(tmp_path, dialect, numerics)  # 2**127 is a float32; only FNUZ cannot say it
            continue
        with pytest.raises((NumericsError, CorruptCheckpoint), match=sentence):
            loaded(tmp_path, dialect, numerics)


def test_scale_254_is_a_value_in_ocp(tmp_path: Path) -> None:
    config = small_config(compress_ratios=[0])
    tensors = random_tensors(config, 0)
    plant_scale(f"{WO_A}.weight", 254)(tensors)
    write_checkpoint(tmp_path, config, tensors)
    loaded(tmp_path, OCP)


def test_an_unknown_numerics_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"native.*exact"):
        loaded(checkpoint, numerics="fast")


def test_the_writer_refuses_dtypes_that_checkpoints_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x\.weight has dtype torch\.float16"):
        write_checkpoint(tmp_path, {}, {"x.weight": torch.zeros(2, dtype=torch.float16)})
    assert not list(tmp_path.iterdir())
