"""The training forward's attention: a banded window, compressed entries, and the indexer's loss.

The window is a band of 128-token blocks instead of a masked square, and key and value are one
tensor for all heads. A CSA layer also returns the indexer's own loss: top-k passes no gradient, so
the indexer learns from KL(attention mass on the compressed entries || softmax of its scores). Its
inputs are detached: that loss trains the indexer and nothing else. With `sparse` off every visible
entry is attended (the warm-up), but the loss is the same.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pieces import compress, rms, rope
from torch import Tensor, nn

WINDOW = 128
# One row in four teaches the indexer; its backward is the dearest part of a CSA layer.
INDEX_LOSS_SHARE = 4


def attention(
    p: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, sparse: bool
) -> tuple[Tensor, Tensor]:
    """One attention block on its normed input x [B,S,D]: its output and the indexer's loss or 0."""
    batch, length, _ = x.shape
    heads, width, dtype = p.num_heads, p.head_dim, x.dtype
    qr = rms(F.linear(x, p.q_a_proj.weight.to(dtype)), p.q_a_norm.weight)
    q = rms(F.linear(qr, p.q_b_proj.weight.to(dtype)).unflatten(-1, (heads, width)))
    q = rope(q, cos.unsqueeze(-2), sin.unsqueeze(-2))
    kv = rope(rms(F.linear(x, p.kv_proj.weight.to(dtype)), p.kv_norm.weight), cos, sin)
    blocks = kv.unflatten(1, (-1, WINDOW))
    near = torch.cat((F.pad(blocks[:, :-1], (0, 0, 0, 0, 1, 0)), blocks), 2).flatten(0, 1)
    local = window_logits(q, near)
    sink = p.sinks.view(1, 1, heads, 1).expand(batch, length, heads, 1)
    loss = x.new_zeros((), dtype=torch.float32)
    parts = [local, sink]
    if p.compressor is not None:
        entries = compress(p.compressor, x, width, cos, sin)
        ratio = p.compressor.position_bias.shape[0]
        distant, ready = entry_logits(q, entries, ratio)
        if ratio == 4:
            known = (x.detach(), qr.detach(), cos, sin)
            masses = (local.detach(), distant.detach(), p.sinks.detach())
            hidden, loss = teach_and_select(p.compressor.indexer, known, masses, ready, sparse)
            distant = distant if hidden is None else distant.masked_fill(hidden, -math.inf)
        parts.insert(1, distant)
    probs = torch.cat(parts, -1).softmax(-1).to(dtype)
    close = probs[..., : 2 * WINDOW].reshape(-1, WINDOW * heads, 2 * WINDOW)
    out = torch.bmm(close, near).view(batch, length, heads, width)
    if p.compressor is not None:
        far = probs[..., 2 * WINDOW : -1].reshape(batch, length * heads, -1)
        out = out + torch.bmm(far, entries).view(batch, length, heads, width)
    return project_out(p, rope(out, cos.unsqueeze(-2), -sin.unsqueeze(-2))), loss


def window_logits(q: Tensor, near: Tensor) -> Tensor:
    """Scaled logits [B,S,H,256] of q [B,S,H,D] on its own and the previous block, masked."""
    batch, length, heads, width = q.shape
    local = torch.bmm(q.reshape(-1, WINDOW * heads, width), near.transpose(1, 2)).float()
    local = (local * width**-0.5).view(batch, length, heads, 2 * WINDOW)
    position = torch.arange(length, device=q.device).unsqueeze(-1)
    i, j = position % WINDOW, torch.arange(2 * WINDOW, device=q.device)
    seen = (j > i) & (j <= i + WINDOW) & (position - i + j >= WINDOW)
    return local.masked_fill(~seen.unsqueeze(1), -math.inf)


def entry_logits(q: Tensor, entries: Tensor, ratio: int) -> tuple[Tensor, Tensor]:
    """Scaled logits [B,S,H,T] on compressed entries, masked, and which are ready [S,T]."""
    batch, length, heads, width = q.shape
    count = entries.shape[1]
    position = torch.arange(length, device=q.device).unsqueeze(-1)
    ready = torch.arange(count, device=q.device) < (position + 1) // ratio
    logits = torch.bmm(q.reshape(batch, length * heads, width), entries.transpose(1, 2)).float()
    logits = (logits * width**-0.5).view(batch, length, heads, count)
    return logits.masked_fill(~ready.unsqueeze(1), -math.inf), ready


def project_out(p: nn.Module, out: Tensor) -> Tensor:
    """Heads [B,S,H,D], turned back, through the grouped low-rank output projection."""
    batch, length = out.shape[:2]
    groups = p.o_a_proj.n_groups
    grouped = out.reshape(batch * length, groups, -1).transpose(0, 1)
    weight = p.o_a_proj.weight.to(out.dtype).view(groups, -1, grouped.shape[-1])
    low = torch.bmm(grouped, weight.transpose(1, 2)).transpose(0, 1).reshape(batch, length, -1)
    return F.linear(low, p.o_b_proj.weight.to(out.dtype))


def teach_and_select(
    p: nn.Module,
    known: tuple[Tensor, Tensor, Tensor, Tensor],
    masses: tuple[Tensor, Tensor, Tensor],
    ready: Tensor,
    sparse: bool,
) -> tuple[Tensor | None, Tensor]:
    """Entries that the indexer leaves out [B,S,1,T] (None: it leaves out none) and its loss.

    known: block input, query residual, cos, sin. masses: window logits, entry logits, sinks.
    """
    x, qr, cos, sin = known
    taught = max(1, x.shape[0] // INDEX_LOSS_SHARE)
    scores = index_scores(p, x[:taught], qr[:taught], cos, sin)
    local, distant, sinks = masses
    loss = index_loss(scores, local[:taught], distant[:taught], sinks, ready)
    if not sparse or ready.shape[-1] <= p.index_topk:
        return None, loss
    scores = scores.detach()
    if x.shape[0] > taught:
        with torch.no_grad():
            scores = torch.cat((scores, index_scores(p, x[taught:], qr[taught:], cos, sin)))
    masked = scores.masked_fill(~ready, -math.inf)
    floor = masked.topk(p.index_topk, -1, sorted=True).values[..., -1:]
    return (masked < floor).unsqueeze(2), loss


def index_scores(p: nn.Module, x: Tensor, qr: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The lightning indexer's scores [B,S,T] float32, before the causal mask."""
    heads, width = p.num_heads, p.head_dim
    q = F.linear(qr, p.q_b_proj.weight.to(x.dtype)).unflatten(-1, (heads, width))
    q = rope(q, cos.unsqueeze(-2), sin.unsqueeze(-2))
    keys = compress(p, x, width, cos, sin)
    dots = torch.bmm(q.flatten(1, 2), keys.transpose(1, 2)).unflatten(1, (-1, heads))
    weight = F.linear(x, p.scorer.weights_proj.weight.to(x.dtype)).float() * (width * heads) ** -0.5
    return (F.relu(dots).float() * weight.unsqueeze(-1)).sum(2)


def index_loss(
    scores: Tensor, local: Tensor, distant: Tensor, sinks: Tensor, ready: Tensor
) -> Tensor:
    """Mean KL from the heads' summed attention mass on visible entries to the softmax of the index
    scores.
    """
    with torch.no_grad():
        sink = sinks.view(1, 1, -1, 1).expand(*local.shape[:3], 1)
        every = torch.cat((local, distant, sink), -1).softmax(-1)
        target = every[..., local.shape[-1] : -1].sum(2)
        target = target / target.sum(-1, keepdim=True).clamp_min(1e-9)
    rows = ready.any(-1)
    log_q = scores.masked_fill(~ready, -1e30).log_softmax(-1)
    kl = (target * (target.clamp_min(1e-9).log() - log_q.clamp_min(-1e4))).sum(-1)
    return (kl * rows).sum() / (rows.sum() * scores.shape[0]).clamp_min(1)
