"""A replica's process sees one GPU: the one that its index means where it was started."""

from __future__ import annotations

import os

import pytest

from isobath.config import see_only_gpu

CUDA, HIP = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {CUDA: "1"}),
        ({CUDA: "4,6"}, {CUDA: "6"}),
        ({CUDA: "GPU-a, GPU-b"}, {CUDA: "GPU-b"}),
        ({HIP: "4,6"}, {HIP: "6", CUDA: "1"}),
        ({CUDA: "4,6", HIP: "4,6"}, {CUDA: "6", HIP: "6"}),
        ({CUDA: "4"}, {CUDA: ""}),
    ],
)
def test_an_index_counts_among_the_gpus_that_could_be_seen(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: dict[str, str]
) -> None:
    for name in (CUDA, HIP):
        monkeypatch.setenv(name, "")  # or what see_only_gpu sets would stay
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    see_only_gpu(1)
    assert {n: os.environ[n] for n in (CUDA, HIP) if n in os.environ} == after
