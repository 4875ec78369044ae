"""A cache met by a reader that expects another tag is an error in four parts, before any kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isobath.cache.layout import index_row, kv_row
from isobath.cache.pool import CachePool, LayerCache, allocate_pool
from isobath.cache.prefix import PrefixCache
from isobath.cache.tag import Tag, tag_of
from isobath.config import EngineConfig
from isobath.engine.engine import Engine
from isobath.errors import DialectMismatch, IsobathError, LayoutMismatch
from isobath.model.batch import BatchBuilder, Chunk
from isobath.model.load import load
from isobath.model.v4 import forward
from isobath.numerics import FNUZ, OCP, Dialect
from isobath.ops.table import OpTable, bind
from tests.support.checkpoints import random_checkpoint

CPU = torch.device("cpu")
KV = kv_row(512, 64)
TAG = tag_of(KV, OCP, "r1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tags")
    random_checkpoint(path, seed=3, num_hidden_layers=3, compress_ratios=[0, 4, 128])
    return path


def message(error: IsobathError) -> list[str]:
    assert all((error.asked, error.found, error.effect, error.do))
    return str(error).splitlines()


def test_a_tag_says_dialect_layout_scale_and_model() -> None:
    assert Tag("OCP", KV.version, "ue8m0", "r1") == replace(TAG, dialect="OCP")
    assert TAG.dialect == OCP.name
    assert tag_of(index_row(128), FNUZ, "r1").scale == "fp32"
    plain = kv_row(512, 64, plain=True)
    assert tag_of(plain, OCP, "r1") == tag_of(plain, FNUZ, "r1")
    assert str(TAG) == f"{OCP.name}, layout {KV.version}, scale ue8m0, model r1"


def test_the_right_tag_is_accepted() -> None:
    TAG.expect(tag_of(kv_row(512, 64), OCP, "r1"), reader="reader")


def test_the_other_dialect_is_refused() -> None:
    with pytest.raises(DialectMismatch) as caught:
        tag_of(KV, FNUZ, "r1").expect(TAG, reader="reader")
    assert message(caught.value) == [
        f"reader: expected {OCP.name}, got {FNUZ.name}",
        f"  found: a cache tagged {tag_of(KV, FNUZ, 'r1')}",
        "  effect: every value would be off by a factor of two",
        "  do: write and read a cache in one dialect",
    ]


def test_another_geometry_is_refused() -> None:
    other = tag_of(kv_row(64, 16), OCP, "r1")
    with pytest.raises(LayoutMismatch) as caught:
        other.expect(TAG, reader="reader")
    assert message(caught.value) == [
        f"reader: expected layout {KV.version} with scale ue8m0",
        f"  found: a cache tagged {other}",
        "  effect: rows would be read at another row's bytes",
        "  do: allocate the cache from the config and numerics that read it",
    ]


def test_another_model_is_refused() -> None:
    other = tag_of(KV, OCP, "r2")
    with pytest.raises(LayoutMismatch) as caught:
        other.expect(TAG, reader="reader")
    assert message(caught.value) == [
        "reader: expected a cache of model r1",
        f"  found: a cache tagged {other}",
        "  effect: the keys would be another model's, and the answer silently wrong",
        "  do: give every model a cache of its own",
    ]


# ---- pool and model


def parts(folder: Path, numerics: str = "native"):
    ops = bind("torch")
    return *load(folder, numerics=numerics, dialect=OCP, device=CPU, ops=ops), ops


def pool_of(config, *, revision: str, plain: bool = False, dialect: Dialect = OCP) -> CachePool:
    return allocate_pool(
        config,
        slots=2,
        pages=2,
        staging=8,
        dialect=dialect,
        plain=plain,
        device=CPU,
        revision=revision,
    )


def never(ops: OpTable) -> OpTable:
    """A table whose first op fails the test if it runs."""

    def run(*args: object, **kwargs: object) -> None:
        raise AssertionError("a kernel ran")

    return replace(ops, embed=replace(ops.embed, call=run))


def refused(config, weights, ops: OpTable, pool: CachePool) -> str:
    batch = BatchBuilder(config, pool, CPU).build([Chunk([2, 3], 0, 1, [1])])
    with pytest.raises(LayoutMismatch) as caught:
        forward(config, weights, never(ops), pool, batch)
    return message(caught.value)[0]


def test_forward_refuses_a_pool_of_another_model_or_numerics(folder: Path) -> None:
    config, weights, ops = parts(folder)
    asked = refused(config, weights, ops, pool_of(config, revision="other"))
    model = weights.revision
    assert asked == f"forward(pool=): window cache: expected a cache of model {model}"
    plain = pool_of(config, revision=model, plain=True)
    assert "window cache: expected layout" in refused(config, weights, ops, plain)
    narrow = pool_of(replace(config, index_head_dim=16), revision=model)
    assert "index cache: expected layout" in refused(config, weights, ops, narrow)


def swapped(pool: CachePool, **caches: object) -> CachePool:
    """The pool with caches of its ratio-4 layer replaced."""
    layers: list[LayerCache] = list(pool.layers)
    layers[1] = replace(layers[1], **caches)
    return replace(pool, layers=tuple(layers))


def test_a_pool_refuses_a_cache_in_another_dialect_than_its_kind(folder: Path) -> None:
    config, weights, _ = parts(folder)
    ours, theirs = (pool_of(config, revision=weights.revision, dialect=d) for d in (OCP, FNUZ))
    for name, label in (("window", "window"), ("compressor", "entries"), ("indexer", "index")):
        with pytest.raises(DialectMismatch) as caught:
            swapped(ours, **{name: getattr(theirs.layers[1], name)})
        asked = f"CachePool: layer 1 {label} cache: expected {OCP.name}, got {FNUZ.name}"
        assert message(caught.value)[0] == asked


def test_window_and_compressed_caches_may_differ_in_dialect(folder: Path) -> None:
    """Each is decoded by its own tag: logits are those of a pool in one dialect."""
    config, weights, ops = parts(folder)
    one, other = (pool_of(config, revision=weights.revision, dialect=d) for d in (OCP, FNUZ))
    layers = [replace(b, window=a.window) for a, b in zip(one.layers, other.layers, strict=True)]
    tags = replace(other.tags, window=one.tags.window)
    mixed = replace(other, layers=tuple(layers), tags=tags)
    logits = []
    for pool in (pool_of(config, revision=weights.revision), mixed):
        batch = BatchBuilder(config, pool, CPU).build([Chunk(list(range(2, 10)), 0, 1, [1], "all")])
        with torch.inference_mode():
            logits.append(forward(config, weights, ops, pool, batch))
    assert torch.equal(*logits)


# ---- what tells one checkpoint's cache from another's


def test_revisions_tell_checkpoints_apart_and_are_repeatable(folder: Path, tmp_path: Path) -> None:
    random_checkpoint(tmp_path, seed=4, num_hidden_layers=3, compress_ratios=[0, 4, 128])
    same = {parts(folder, numerics)[1].revision for numerics in ("native", "exact")}
    assert len(same) == 1
    assert parts(tmp_path)[1].revision not in same


def test_prefix_keys_depend_on_every_part_of_the_tag(folder: Path) -> None:
    config, weights, ops = parts(folder)
    keys = set()
    tokens = [2] * 128
    exact = parts(folder, "exact")[1]
    others = [weights, replace(weights, dialect=FNUZ), replace(weights, revision="x"), exact]
    for each in others:
        cache = Engine(config, each, ops, CPU, EngineConfig(num_pages=2, max_num_seqs=1)).prefixes
        assert isinstance(cache, PrefixCache)
        found: list[bytes] = []
        cache.extend(found, tokens, 1)
        keys.add(found[0])
    assert len(keys) == len(others)
