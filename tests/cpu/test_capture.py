"""What may not run in a captured step is found on a CPU, operator by operator, and named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from isobath.errors import CaptureUnsafe
from isobath.numerics import OCP
from isobath.ops.capture import capture_safe
from isobath.ops.experts.torch_kernel import DENSE_TOKENS
from isobath.ops.table import contract

X = torch.arange(6.0).view(2, 3)
MASK = X > 2
COUNTS = torch.tensor([1, 2])

READS = {
    "aten._local_scalar_dense.default": lambda: X.sum().item(),
    "aten._local_scalar_dense": lambda: int(X.sum()),
    "_local_scalar_dense": lambda: bool(X[0, 0]),
    "aten.equal": lambda: torch.equal(X, X),
    "Tensor.tolist": lambda: X.tolist(),
}
SHAPES = {
    "aten.nonzero": lambda: torch.nonzero(X),
    "aten.nonzero.default": lambda: torch.where(MASK),
    "aten.masked_select": lambda: torch.masked_select(X, MASK),
    "aten._unique2": lambda: torch.unique(X),
    "aten.unique_consecutive": lambda: torch.unique_consecutive(X),
    "aten.unique_dim": lambda: torch.unique(X, dim=0),
    "aten.bincount": lambda: torch.bincount(COUNTS),
    "aten.index.Tensor": lambda: X[MASK],
    "aten.index_put_": lambda: X.clone().__setitem__(MASK, torch.ones(3)),
    "aten.repeat_interleave.Tensor": lambda: torch.repeat_interleave(COUNTS),
    "aten.repeat_interleave": lambda: X.repeat_interleave(COUNTS, 0),
}
WRITES = {
    "aten.lift_fresh": lambda: torch.tensor([1, 2]),
    "lift_fresh.default": lambda: torch.as_tensor([1.0]),
    "aten._to_copy": lambda: X.to("meta"),
    "aten.copy_": lambda: torch.empty(2, 3, device="meta").copy_(X),
}


def cases(table: dict[str, Callable[[], object]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("operator", "call"), table.items(), ids=table)


@cases(READS)
@pytest.mark.parametrize("inference", [False, True])
def test_reading_a_value_on_the_host_is_named(operator, call, inference: bool) -> None:
    refused(operator, call, "the host reads a value", inference)


@cases(SHAPES)
@pytest.mark.parametrize("inference", [False, True])
def test_a_shape_that_depends_on_values_is_named(operator, call, inference: bool) -> None:
    refused(operator, call, "a shape depends on values", inference)


@cases(WRITES)
@pytest.mark.parametrize("inference", [False, True])
def test_a_value_from_the_host_or_another_device_is_named(operator, call, inference: bool) -> None:
    refused(operator, call, "a ", inference)


def refused(operator: str, call: Callable[[], object], effect: str, inference: bool) -> None:
    with (
        torch.inference_mode(inference),
        pytest.raises(CaptureUnsafe) as caught,
        capture_safe("verify"),
    ):
        call()
    error = caught.value
    assert error.asked.startswith("verify: ") and operator in error.asked
    assert error.effect.startswith(effect)
    assert error.found == "called by code outside isobath's ops, model and cache"
    assert error.do


def test_work_that_only_enqueues_is_allowed() -> None:
    with capture_safe():
        rows = X.index_select(0, torch.arange(2)) + X[torch.arange(2)]
        rows.masked_fill_(MASK, 0.0)
        rows[:, 0] = 1.5
        rows[:, 1] = X[:, 1]
        rows.repeat_interleave(2, 0).topk(1).indices.sort()
        X.to(torch.bfloat16).to("cpu").new_zeros(3)
        torch.where(MASK, X, 0.0).numpy()


def test_the_isobath_function_that_ran_the_operator_is_named() -> None:
    """More tokens than DENSE_TOKENS are sorted by expert, which counts them."""
    op = contract("experts")
    args = op.cases()[1].make(OCP, torch.device("cpu"), torch.Generator())
    backend = op.backend("torch")
    tokens, width = DENSE_TOKENS + 1, args["x"].data.shape[1]
    k = args["experts"].shape[1]
    experts = torch.arange(k).expand(tokens, k).contiguous()
    x = contract("quantize_act").backend("torch")(torch.ones(tokens, width).bfloat16(), OCP)
    prepared = backend.prepare(args["expert_weights"])
    with pytest.raises(CaptureUnsafe) as caught, capture_safe():
        backend(x, experts, torch.ones(tokens, k), prepared, None, limit=10.0)
    assert caught.value.asked == "decode: aten.bincount.default may not run in a captured step"
    assert caught.value.found.startswith("called by isobath.ops.experts.torch_kernel._sorted:")


def test_nothing_is_watched_outside_the_region() -> None:
    with capture_safe():
        X + 1
    assert X.sum().item() == 15
