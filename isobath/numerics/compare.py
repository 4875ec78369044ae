"""How close two tensors are, and a report a person can act on: the first and the worst mismatch.

NaN agrees with NaN and with nothing else; so does each infinity. An agreement judges the worst
row, never a mean over the tensor: one ruined row among thousands is a ruined request.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Report:
    """Outcome of one comparison. error: the worst figure in the agreement's own unit."""

    agrees: bool
    error: float
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Agreement:
    """Base of the ways to agree; `compare(got, want)` gives a Report."""

    def errors(self, got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
        """Error of every judged unit (element or row): float64, shape of the units."""
        raise AssertionError(f"{type(self).__name__} is not a way to agree")

    def limit(self) -> float:
        """Largest error that still agrees."""
        return 0.0

    def compare(self, got: torch.Tensor, want: torch.Tensor) -> Report:
        """Judge `got` against `want`; both on the CPU or the same device, same shape."""
        if got.shape != want.shape:
            text = f"shape {list(got.shape)}, expected {list(want.shape)}"
            return Report(False, float("inf"), text)
        if want.numel() == 0:
            return Report(True, 0.0, "empty")
        errors = self.errors(got, want)
        worst = float(errors.max())
        if worst <= self.limit():
            return Report(True, worst, f"agrees: worst {worst:.3g} <= {self.limit():.3g} ({self})")
        bad = errors > self.limit()
        first = tuple(int(i) for i in bad.nonzero()[0])
        at = tuple(int(i) for i in torch.unravel_index(errors.argmax(), errors.shape))
        text = (
            f"{int(bad.sum())} of {errors.numel()} off by more than {self.limit():.3g} ({self})\n"
            f"  first at {list(first)}: got {_show(got, first)}, expected {_show(want, first)}\n"
            f"  worst at {list(at)}: got {_show(got, at)}, expected {_show(want, at)}, "
            f"error {worst:.3g}"
        )
        return Report(False, worst, text)


@dataclass(frozen=True, slots=True)
class Exact(Agreement):
    """Every element equal (bit-equal up to the sign of zero and NaN payloads)."""

    def errors(self, got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
        same = (got == want) | (_isnan(got) & _isnan(want))
        return (~same).double()


@dataclass(frozen=True, slots=True)
class Ulp(Agreement):
    """Every element within `ulps` representable float32 (or bf16) values of the other."""

    ulps: int

    def errors(self, got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
        distance = (_ordered(got) - _ordered(want)).abs().double()
        same = (got == want) | (got.isnan() & want.isnan())
        distance = torch.where(got.isfinite() & want.isfinite(), distance, float("inf"))
        return torch.where(same, 0.0, distance)

    def limit(self) -> float:
        return float(self.ulps)


@dataclass(frozen=True, slots=True)
class Relative(Agreement):
    """Per row (last dimension), ||got - want|| <= tolerance * ||want||, in float64.

    A row whose reference is all zero must be zero. Positions where both are NaN, or the same
    infinity, count as equal; a row that is non-finite on one side only has infinite error.
    """

    tolerance: float
    per: str = "row"

    def errors(self, got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
        assert self.per in ("row", "tensor"), self.per
        got, want = (t.double().reshape(-1, t.shape[-1] if t.dim() else 1) for t in (got, want))
        if self.per == "tensor":
            got, want = got.reshape(1, -1), want.reshape(1, -1)
        same = (got == want) | (got.isnan() & want.isnan())
        difference = torch.where(same, 0.0, got - want).norm(dim=-1)
        size = torch.where(want.isfinite(), want, 0.0).norm(dim=-1)
        error = torch.where(difference == 0, 0.0, difference / size)
        return torch.where(difference.isfinite(), error, float("inf"))

    def limit(self) -> float:
        return self.tolerance


@dataclass(frozen=True, slots=True)
class TopKSet(Agreement):
    """Per row, the same set of indices, order ignored; negative entries are padding."""

    def errors(self, got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
        got, want = (t.reshape(-1, t.shape[-1]).clamp_min(-1).sort(-1).values for t in (got, want))
        return (got != want).sum(-1).double()


def _isnan(t: torch.Tensor) -> torch.Tensor:
    return t.isnan() if t.is_floating_point() else torch.zeros_like(t, dtype=torch.bool)


def _ordered(t: torch.Tensor) -> torch.Tensor:
    """Float bits as integers that count representable values; both zeros are 0."""
    integer = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[t.dtype]
    bits = t.contiguous().view(integer).long()
    magnitude = bits & torch.iinfo(integer).max
    return torch.where(bits < 0, -magnitude, magnitude)


def _show(t: torch.Tensor, index: tuple[int, ...]) -> str:
    """The element, or the start of the row, at `index` of the units that were judged."""
    if len(index) == t.dim():
        return f"{t[index].item():.9g}"  # float32 values that differ look different
    row = t.reshape(-1, t.shape[-1])[index[0]]
    head = ", ".join(f"{v:.4g}" for v in row[:4].tolist())
    return f"[{head}{', …' if len(row) > 4 else ''}]"
