"""Optimiser of isobath-tiny: Muon for matrices, Adam for the rest, float32 masters.

Every weight matrix inside the layers takes Muon's orthogonalised momentum, scaled to Adam's usual
update size (0.2 sqrt(max(rows, cols))), because one pass of it is worth about one and a half of
Adam's and passes over a small corpus are what overfit. Embedding, head, router, mixers, norms,
sinks and position biases take Adam. `publish()` copies the masters into the model, through the
stored formats once `quantised` is on; gradients are applied to the masters as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from quant import publish, stored_as
from torch import Tensor, nn

ADAM_BETAS, ADAM_EPS, MUON_MOMENTUM = (0.9, 0.95), 1e-10, 0.95
_ADAM_WORDS = (
    "embed_tokens",
    "lm_head",
    "mlp.gate.",
    "_hc.",
    "hc_head",
    "position_bias",
    "weights_proj",
    "norm",
    "sinks",
)


def uses_adam(name: str, p: Tensor) -> bool:
    return p.dim() < 2 or any(word in name for word in _ADAM_WORDS)


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration of matrices [n, r, c] towards the nearest orthogonal ones."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16() if g.is_cuda else g
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Optimiser:
    """Owns the masters and the moments of a model's trainable parameters."""

    def __init__(
        self, model: nn.Module, adam_lr: float, muon_lr: float, weight_decay: float
    ) -> None:
        self.params = dict(model.named_parameters())
        self.masters = {n: p.detach().clone() for n, p in self.params.items()}
        self.first = {n: torch.zeros_like(p) for n, p in self.masters.items()}
        self.second = {n: torch.zeros_like(p) for n, p in self.masters.items() if uses_adam(n, p)}
        self.adam_lr, self.muon_lr, self.weight_decay = adam_lr, muon_lr, weight_decay
        self.count = 0
        self.groups: dict[tuple[int, ...], list[str]] = {}
        for name, p in self.masters.items():
            if name not in self.second:
                self.groups.setdefault(tuple(self._split(name, p).shape[-2:]), []).append(name)

    @staticmethod
    def _split(name: str, p: Tensor) -> Tensor:
        """The matrices [n, r, c] of a parameter: grouped wo_a and fused w1, w3 are several."""
        if name.endswith("gate_up_proj"):
            return p.unflatten(1, (2, -1)).flatten(0, 1)
        if name.endswith("o_a_proj.weight"):
            return p.unflatten(0, (2, -1))
        return p if p.dim() == 3 else p.unsqueeze(0)

    @torch.no_grad()
    def publish(self, quantised: bool) -> None:
        """Copy the masters into the model, as stored if `quantised`."""
        if quantised:
            publish(self.masters, self.params)
        else:
            torch._foreach_copy_(list(self.params.values()), list(self.masters.values()))

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Apply the model's gradients at learning rates scaled by `factor`, then clear them."""
        self.count += 1
        self._adam(factor)
        for names in self.groups.values():
            pieces = []
            for name in names:
                grad = self.params[name].grad
                assert grad is not None, name
                momentum = self.first[name].lerp_(grad, 1 - MUON_MOMENTUM)
                pieces.append(self._split(name, grad.lerp(momentum, MUON_MOMENTUM)))
            updates = orthogonalise(torch.cat(pieces)).split([len(piece) for piece in pieces])
            rows, cols = pieces[0].shape[-2:]
            scale = self.muon_lr * factor * 0.2 * max(rows, cols) ** 0.5
            for name, update in zip(names, updates, strict=True):
                master = self.masters[name].mul_(1 - self.muon_lr * factor * self.weight_decay)
                master.sub_(update.reshape(master.shape), alpha=scale)
        for p in self.params.values():
            p.grad = None

    def _adam(self, factor: float) -> None:
        names = list(self.second)
        grads = [self.params[n].grad for n in names]
        first, second = [self.first[n] for n in names], [self.second[n] for n in names]
        (b1, b2), t = ADAM_BETAS, self.count
        torch._foreach_lerp_(first, grads, 1 - b1)
        torch._foreach_mul_(second, b2)
        torch._foreach_addcmul_(second, grads, grads, 1 - b2)
        root = torch._foreach_div(second, 1 - b2**t)
        torch._foreach_sqrt_(root)
        torch._foreach_add_(root, ADAM_EPS)
        step = torch._foreach_div(first, root)
        for name, update in zip(names, step, strict=True):
            slow = (
                0.3 if "_hc." in name or "hc_head" in name or name.endswith("norm.weight") else 1.0
            )
            self.masters[name].sub_(update, alpha=self.adam_lr * factor * slow / (1 - b1**t))

    def state(self) -> dict[str, Any]:
        return {
            "masters": self.masters,
            "first": self.first,
            "second": self.second,
            "count": self.count,
        }

    def load(self, state: dict[str, Any]) -> None:
        for part in ("masters", "first", "second"):
            for name, tensor in getattr(self, part).items():
                tensor.copy_(state[part][name])
        self.count = state["count"]

    def formats(self) -> dict[str, int]:
        """How many parameters are stored in each format."""
        out: dict[str, int] = {}
        for name, p in self.masters.items():
            out[stored_as(name)] = out.get(stored_as(name), 0) + p.numel()
        return out
