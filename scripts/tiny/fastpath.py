"""The training forward of isobath-tiny: transformers' parameters, arranged for a GPU.

Computes what `DeepseekV4ForCausalLM` computes for whole sequences from position 0 (`sample.py
--check` compares the two in float32). Attention is in attend.py. Routed and shared experts are two
dense products with zero weights for experts that were not chosen: at 16 experts of width 128 this
costs less than sorting tokens would. Hyper-connections, router, norms and softmax stay float32
while products run in `dtype`. Sequence length must be a multiple of 128.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from attend import attention
from pieces import EPS, expand, mixers, rms
from torch import Tensor, nn


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
    dense = torch.cat((dense, torch.ones_like(dense[:, :1])), 1)  # last column: shared expert
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
