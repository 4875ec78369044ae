"""The small parts of the training forward that attention and the rest share.

Norm, rotation, hyper-connections and the compressor, as functions of transformers' parameters.
Norms, mixers and pooling run in float32 whatever the dtype of the activations.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6


def rms(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """RMS norm in float32, result in x's dtype."""
    y = x.float()
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + EPS)
    return (y if weight is None else y * weight.float()).to(x.dtype)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate adjacent pairs of the last 64 channels; x [..., S, D] or [..., S, H, D] with matching
    cos, sin.
    """
    width = 2 * cos.shape[-1]
    pair = x[..., -width:].float().unflatten(-1, (-1, 2))
    a, b = pair.unbind(-1)
    turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    return torch.cat((x[..., :-width], turned.to(x.dtype)), -1)


def mixers(
    streams: Tensor, fn: Tensor, base: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """streams [B,S,4,D] -> collapsed block input [B,S,D], post [B,S,4], comb [B,S,4(in),4(out)]."""
    flat = streams.flatten(-2).float()
    u = F.linear(flat, fn) * torch.rsqrt(flat.square().mean(-1, keepdim=True) + EPS)
    pre = torch.sigmoid(u[..., :4] * scale[0] + base[:4]) + EPS
    post = 2 * torch.sigmoid(u[..., 4:8] * scale[1] + base[4:8])
    comb = (u[..., 8:] * scale[2] + base[8:]).unflatten(-1, (4, 4)).softmax(-1) + EPS
    comb = comb / (comb.sum(-2, keepdim=True) + EPS)
    for _ in range(19):
        comb = comb / (comb.sum(-1, keepdim=True) + EPS)
        comb = comb / (comb.sum(-2, keepdim=True) + EPS)
    return (pre.unsqueeze(-1) * streams.float()).sum(-2).to(streams.dtype), post, comb


def expand(y: Tensor, streams: Tensor, post: Tensor, comb: Tensor) -> Tensor:
    """Write a block's output y [B,S,D] back: post_k y + sum_j comb[j,k] stream_j, in float32."""
    mixed = (comb.unsqueeze(-1) * streams.float().unsqueeze(-2)).sum(-3)
    return (post.unsqueeze(-1) * y.float().unsqueeze(-2) + mixed).to(streams.dtype)


def compress(p: nn.Module, x: Tensor, width: int, cos: Tensor, sin: Tensor) -> Tensor:
    """Pool every 4 or 128 tokens of x [B,S,D] into one normed and rotated entry [B,T,width]."""
    ratio = p.position_bias.shape[0]
    kv = F.linear(x, p.kv_proj.weight.to(x.dtype)).float().unflatten(1, (-1, ratio))
    gate = F.linear(x, p.gate_proj.weight.to(x.dtype)).float().unflatten(1, (-1, ratio))
    gate = gate + p.position_bias
    if ratio == 4:  # previous window's first half beside this window's second half
        kv = torch.cat((F.pad(kv[:, :-1, :, :width], (0, 0, 0, 0, 1, 0)), kv[..., width:]), 2)
        before = F.pad(gate[:, :-1, :, :width], (0, 0, 0, 0, 1, 0), value=-math.inf)
        gate = torch.cat((before, gate[..., width:]), 2)
    pooled = (kv * gate.softmax(2)).sum(2).to(x.dtype)
    return rope(rms(pooled, p.kv_norm.weight), cos[::ratio], sin[::ratio])
