"""The training forward of isobath-tiny: transformers' parameters, arranged for a GPU.

Computes what `DeepseekV4ForCausalLM` computes for whole sequences from position 0 (`sample.py
--check` compares the two in float32), but

* the sliding window is a band of 128-token blocks instead of a masked square, and key and value are
  one tensor for all heads;
* routed and shared experts are two dense products with zero weights for experts that were not
  chosen: at 16 experts of width 128 this costs less than sorting tokens would;
* hyper-connections, router, norms and softmax stay float32 while products run in `dtype`;
* each CSA layer also returns the indexer's own loss. The top-k passes no gradient, so the indexer
  learns from KL(attention mass on the compressed entries || softmax of its scores), with detached
  inputs: that loss trains the indexer and nothing else. With `sparse` off every visible entry is
  attended (the warm-up), but the loss is the same.

Sequence length must be a multiple of 128.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 128
EPS = 1e-6
INDEX_LOSS_SHARE = (
    4  # one row in four teaches the indexer; its backward is the dearest part of a CSA layer
)


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
    gate = (
        F.linear(x, p.gate_proj.weight.to(x.dtype)).float().unflatten(1, (-1, ratio))
        + p.position_bias
    )
    if ratio == 4:  # previous window's first half beside this window's second half
        kv = torch.cat((F.pad(kv[:, :-1, :, :width], (0, 0, 0, 0, 1, 0)), kv[..., width:]), 2)
        before = F.pad(gate[:, :-1, :, :width], (0, 0, 0, 0, 1, 0), value=-math.inf)
        gate = torch.cat((before, gate[..., width:]), 2)
    pooled = (kv * gate.softmax(2)).sum(2).to(x.dtype)
    return rope(rms(pooled, p.kv_norm.weight), cos[::ratio], sin[::ratio])


def index_scores(p: nn.Module, x: Tensor, qr: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The lightning indexer's scores [B,S,T] float32, before the causal mask."""
    heads, width = p.num_heads, p.head_dim
    q = F.linear(qr, p.q_b_proj.weight.to(x.dtype)).unflatten(-1, (heads, width))
    q = rope(q, cos.unsqueeze(-2), sin.unsqueeze(-2))
    keys = compress(p, x, width, cos, sin)
    dots = torch.bmm(q.flatten(1, 2), keys.transpose(1, 2)).unflatten(1, (-1, heads))
    weight = F.linear(x, p.scorer.weights_proj.weight.to(x.dtype)).float() * (width * heads) ** -0.5
    return (F.relu(dots).float() * weight.unsqueeze(-1)).sum(2)


def attention(
    p: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, sparse: bool
) -> tuple[Tensor, Tensor]:
    """One attention block on its normed input x [B,S,D]. Returns its output and the indexer's loss
    (0 if none).
    """
    batch, length, _ = x.shape
    heads, width, dtype = p.num_heads, p.head_dim, x.dtype
    qr = rms(F.linear(x, p.q_a_proj.weight.to(dtype)), p.q_a_norm.weight)
    q = rms(F.linear(qr, p.q_b_proj.weight.to(dtype)).unflatten(-1, (heads, width)))
    q = rope(q, cos.unsqueeze(-2), sin.unsqueeze(-2))
    kv = rope(rms(F.linear(x, p.kv_proj.weight.to(dtype)), p.kv_norm.weight), cos, sin)
    blocks = kv.unflatten(1, (-1, WINDOW))
    near = torch.cat((F.pad(blocks[:, :-1], (0, 0, 0, 0, 1, 0)), blocks), 2).flatten(0, 1)
    scale = width**-0.5
    local = torch.bmm(q.reshape(-1, WINDOW * heads, width), near.transpose(1, 2)).float() * scale
    local = local.view(batch, length, heads, 2 * WINDOW)
    position = torch.arange(length, device=x.device)
    i, j = (position % WINDOW).unsqueeze(-1), torch.arange(2 * WINDOW, device=x.device)
    seen = (j > i) & (j <= i + WINDOW) & (position.unsqueeze(-1) - i + j >= WINDOW)
    local = local.masked_fill(~seen.unsqueeze(1), -math.inf)
    sink = p.sinks.view(1, 1, heads, 1).expand(batch, length, heads, 1)
    loss = x.new_zeros((), dtype=torch.float32)
    if p.compressor is None:
        probs = torch.cat((local, sink), -1).softmax(-1)[..., :-1].to(dtype)
        far = entries = None
    else:
        entries = compress(p.compressor, x, width, cos, sin)
        ratio = p.compressor.position_bias.shape[0]
        count = entries.shape[1]
        ready = torch.arange(count, device=x.device) < ((position + 1) // ratio).unsqueeze(
            -1
        )  # [S,T]
        distant = (
            torch.bmm(q.reshape(batch, length * heads, width), entries.transpose(1, 2)).float()
            * scale
        )
        distant = distant.view(batch, length, heads, count).masked_fill(
            ~ready.unsqueeze(1), -math.inf
        )
        if ratio == 4:
            taught = max(1, batch // INDEX_LOSS_SHARE)
            known = x.detach(), qr.detach()
            scores = index_scores(p.compressor.indexer, *(t[:taught] for t in known), cos, sin)
            parts = (local[:taught].detach(), distant[:taught].detach(), p.sinks.detach())
            loss = index_loss(scores, *parts, ready)
            if sparse and batch > taught:
                with torch.no_grad():
                    rest = index_scores(
                        p.compressor.indexer, *(t[taught:] for t in known), cos, sin
                    )
                scores = torch.cat((scores.detach(), rest))
            topk = p.compressor.indexer.index_topk
            if sparse and count > topk:
                masked = scores.detach().masked_fill(~ready, -math.inf)
                floor = masked.topk(topk, -1, sorted=True).values[..., -1:]
                distant = distant.masked_fill((masked < floor).unsqueeze(2), -math.inf)
        probs = torch.cat((local, distant, sink), -1).softmax(-1).to(dtype)
        far = probs[..., 2 * WINDOW : -1]
        probs = probs[..., : 2 * WINDOW]
    out = torch.bmm(probs.reshape(-1, WINDOW * heads, 2 * WINDOW), near).view(
        batch, length, heads, width
    )
    if far is not None:
        out = out + torch.bmm(far.reshape(batch, length * heads, -1), entries).view(
            batch, length, heads, width
        )
    out = rope(out, cos.unsqueeze(-2), -sin.unsqueeze(-2))
    groups = p.o_a_proj.n_groups
    grouped = out.reshape(batch * length, groups, -1).transpose(0, 1)
    low = torch.bmm(
        grouped, p.o_a_proj.weight.to(dtype).view(groups, -1, grouped.shape[-1]).transpose(1, 2)
    )
    low = low.transpose(0, 1).reshape(batch, length, -1)
    return F.linear(low, p.o_b_proj.weight.to(dtype)), loss


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


def moe(p: nn.Module, x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Routed and shared experts on x [B,S,D]. Returns the output and how many tokens chose each
    expert [E].
    """
    flat = x.flatten(0, 1)
    scores = F.softplus(F.linear(flat.float(), p.gate.weight)).sqrt()
    chosen = p.gate.tid2eid[ids.flatten()] if p.is_hash else _top(p.gate, scores)
    weight = scores.gather(1, chosen)
    weight = weight / (weight.sum(-1, keepdim=True) + 1e-20) * p.gate.routed_scaling_factor
    dense = torch.zeros_like(scores).scatter(1, chosen, weight)
    load = torch.zeros_like(scores).scatter(1, chosen, 1.0).sum(0)
    dense = torch.cat(
        (dense, torch.ones_like(dense[:, :1])), 1
    )  # the shared expert is the last column
    shared = p.shared_experts
    up_weight = torch.cat(
        (p.experts.gate_up_proj.flatten(0, 1), shared.gate_proj.weight, shared.up_proj.weight)
    )
    wide = F.linear(flat, up_weight.to(x.dtype)).view(flat.shape[0], dense.shape[1], 2, -1)
    gate, up = wide.float().unbind(2)
    hidden = F.silu(gate.clamp(max=p.experts.limit)) * up.clamp(-p.experts.limit, p.experts.limit)
    hidden = (hidden * dense.unsqueeze(-1)).to(x.dtype).flatten(1)
    down = (
        torch.cat((p.experts.down_proj, shared.down_proj.weight.unsqueeze(0)))
        .transpose(0, 1)
        .flatten(1)
    )
    return F.linear(hidden, down.to(x.dtype)).view_as(x), load


def _top(gate: nn.Module, scores: Tensor) -> Tensor:
    biased = scores.detach() + gate.e_score_correction_bias
    return biased.topk(gate.top_k, -1, sorted=False).indices


def head_loss(
    p: nn.Module, lm_head: Tensor, norm: Tensor, streams: Tensor, targets: Tensor
) -> Tensor:
    """Per-token cross entropy [B*S] in nats (0 where the target is -100)."""
    logits = head_logits(p, lm_head, norm, streams)
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction="none", ignore_index=-100
    )


def head_logits(p: nn.Module, lm_head: Tensor, norm: Tensor, streams: Tensor) -> Tensor:
    """Collapse the streams, norm, and project to the vocabulary."""
    flat = streams.flatten(-2).float()
    u = F.linear(flat, p.hc_fn) * torch.rsqrt(flat.square().mean(-1, keepdim=True) + EPS)
    pre = torch.sigmoid(u * p.hc_scale + p.hc_base) + EPS
    x = (pre.unsqueeze(-1) * streams.float()).sum(-2).to(streams.dtype)
    return F.linear(rms(x, norm), lm_head.to(x.dtype))


def _compile(function: Any) -> Any:
    return torch.compile(function, dynamic=False, fullgraph=True)


class FastForward:
    """Runs a transformers model's parameters through the functions above, each compiled once per
    kind.
    """

    def __init__(self, model: Any, dtype: torch.dtype, compiled: bool) -> None:
        self.model, self.dtype = model, dtype
        torch._dynamo.config.recompile_limit = 64  # layer kinds x warm-up or sparse x grad or not
        wrap = _compile if compiled else (lambda f: f)
        self.mixers, self.expand, self.attention = wrap(mixers), wrap(expand), wrap(attention)
        self.moe, self.head_loss = wrap(moe), wrap(head_loss)

    def angles(self, length: int) -> dict[str, tuple[Tensor, Tensor]]:
        rotary = self.model.model.rotary_emb
        position = torch.arange(length, device=self.model.device).float().unsqueeze(-1)
        pair = {
            k: position * getattr(rotary, f"{k}_inv_freq").float() for k in ("main", "compress")
        }
        return {k: (a.cos(), a.sin()) for k, a in pair.items()}

    def streams(self, ids: Tensor, sparse: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """ids [B,S] -> streams after the last layer, the sum of indexer losses, expert loads of
        every layer.
        """
        body, angles = self.model.model, self.angles(ids.shape[1])
        h = (
            F.embedding(ids, body.embed_tokens.weight)
            .to(self.dtype)
            .unsqueeze(2)
            .repeat(1, 1, 4, 1)
        )
        index, loads = torch.zeros((), device=ids.device), []
        for layer in body.layers:
            attn, mlp = layer.self_attn, layer.mlp
            x, post, comb = self.mixers(
                h, layer.attn_hc.fn, layer.attn_hc.base, layer.attn_hc.scale
            )
            x = rms(x, layer.input_layernorm.weight)
            y, loss = self.attention(attn, x, *angles[attn.rope_layer_type], sparse)
            h, index = self.expand(y, h, post, comb), index + loss
            x, post, comb = self.mixers(h, layer.ffn_hc.fn, layer.ffn_hc.base, layer.ffn_hc.scale)
            y, load = self.moe(mlp, rms(x, layer.post_attention_layernorm.weight), ids)
            h = self.expand(y, h, post, comb)
            loads.append(load)
        return h, index, loads

    def loss(
        self, ids: Tensor, targets: Tensor, sparse: bool
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Per-token nats [B*S], indexer loss, expert loads."""
        h, index, loads = self.streams(ids, sparse)
        m = self.model
        nats = self.head_loss(m.model.hc_head, m.lm_head.weight, m.model.norm.weight, h, targets)
        return nats, index, loads

    def logits(self, ids: Tensor, sparse: bool = True) -> Tensor:
        h, _, _ = self.streams(ids, sparse)
        return head_logits(
            self.model.model.hc_head, self.model.lm_head.weight, self.model.model.norm.weight, h
        )
