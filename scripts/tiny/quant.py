"""Which stored format every parameter has, and its fake quantisation during training.

Owns the map from transformers' parameter names to the published checkpoint's names and dtypes.
Training keeps float32 masters and copies `round_trip(master)` into the parameters before each
forward, so the values the loss sees are the values the exported file holds: MXFP4 for routed
experts, FP8 in 128x128 blocks for the projections that the format stores so, BF16 or float32 for
the rest. Rounding rules are `isobath.numerics`' own.
"""

from __future__ import annotations

import re

import torch

from isobath.numerics import fp8, mxfp4
from isobath.numerics.dialect import OCP

_FP8 = re.compile(
    r"self_attn\.(q_a_proj|q_b_proj|kv_proj|o_a_proj|o_b_proj)\.weight$|indexer\.q_b_proj\.weight$"
    r"|shared_experts\.(gate|up|down)_proj\.weight$"
)
_F32 = re.compile(
    r"(_hc\.(fn|base|scale)|hc_head\.hc_\w+|sinks|position_bias|e_score_correction_bias)$"
)

_RENAMES = (
    (r"^model\.embed_tokens\.", "embed."),
    (r"^lm_head\.", "head."),
    (r"^model\.norm\.", "norm."),
    (r"^model\.hc_head\.hc_", "hc_head_"),
    (r"^model\.layers\.", "layers."),
    (r"\.input_layernorm\.", ".attn_norm."),
    (r"\.post_attention_layernorm\.", ".ffn_norm."),
    (r"\.(attn|ffn)_hc\.", r".hc_\1_"),
    (r"\.self_attn\.compressor\.indexer\.scorer\.", ".attn.indexer."),
    (r"\.self_attn\.compressor\.indexer\.q_b_proj\.", ".attn.indexer.wq_b."),
    (r"\.self_attn\.compressor\.indexer\.", ".attn.indexer.compressor."),
    (r"\.self_attn\.", ".attn."),
    (r"\.compressor\.kv_norm\.", ".compressor.norm."),
    (r"\.compressor\.gate_proj\.", ".compressor.wgate."),
    (r"\.position_bias$", ".ape"),
    (r"\.sinks$", ".attn_sink"),
    (r"\.q_a_norm\.", ".q_norm."),
    (r"\.q_a_proj\.", ".wq_a."),
    (r"\.q_b_proj\.", ".wq_b."),
    (r"\.kv_proj\.", ".wkv."),
    (r"\.o_a_proj\.", ".wo_a."),
    (r"\.o_b_proj\.", ".wo_b."),
    (r"\.mlp\.shared_experts\.gate_proj\.", ".ffn.shared_experts.w1."),
    (r"\.mlp\.shared_experts\.down_proj\.", ".ffn.shared_experts.w2."),
    (r"\.mlp\.shared_experts\.up_proj\.", ".ffn.shared_experts.w3."),
    (r"\.mlp\.gate\.e_score_correction_bias$", ".ffn.gate.bias"),
    (r"\.mlp\.", ".ffn."),
)


def stored_as(name: str) -> str:
    """The format of a transformers parameter: mxfp4, fp8, f32, i64 or bf16."""
    if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
        return "mxfp4"
    if name.endswith("tid2eid"):
        return "i64"
    if _FP8.search(name) and "compressor.kv_proj" not in name:
        return "fp8"
    return "f32" if _F32.search(name) else "bf16"


def published_name(name: str) -> str:
    """The published name of a transformers parameter (not of stacked routed experts)."""
    for pattern, new in _RENAMES:
        name = re.sub(pattern, new, name)
    return name


def round_trip(name: str, master: torch.Tensor) -> torch.Tensor:
    """The float32 values that remain of a master weight once it is stored."""
    kind = stored_as(name)
    if kind == "mxfp4":
        return mxfp4.dequantize(mxfp4.quantize(master))
    if kind == "fp8":
        return fp8.dequantize(fp8.quantize(master, OCP, fp8.WEIGHT_BLOCK))
    return master.to(torch.bfloat16).float() if kind == "bf16" else master


def publish(masters: dict[str, torch.Tensor], params: dict[str, torch.Tensor]) -> None:
    """Copy every master's round trip into `params`; one call a format, since the tensors are small.

    All FP8 blocks are stacked into one matrix of 128 columns and all MXFP4 groups into one of 32:
    scales belong to blocks, so the result is that of `round_trip` tensor by tensor.
    """
    stacks: dict[str, list[str]] = {"fp8": [], "mxfp4": []}
    for name, master in masters.items():
        kind = stored_as(name)
        if kind in stacks:
            stacks[kind].append(name)
        else:
            params[name].copy_(master.to(torch.bfloat16) if kind == "bf16" else master)
    flat = [_to_blocks(masters[name]) for name in stacks["fp8"]]
    merged = fp8.dequantize(fp8.quantize(torch.cat(flat), OCP, fp8.WEIGHT_BLOCK))
    for name, piece in zip(stacks["fp8"], merged.split([len(f) for f in flat]), strict=True):
        params[name].copy_(_from_blocks(piece, masters[name]))
    flat = [masters[name].view(-1, mxfp4.GROUP) for name in stacks["mxfp4"]]
    merged = mxfp4.dequantize(mxfp4.quantize(torch.cat(flat)))
    for name, piece in zip(stacks["mxfp4"], merged.split([len(f) for f in flat]), strict=True):
        params[name].copy_(piece.view_as(masters[name]))


def _to_blocks(w: torch.Tensor) -> torch.Tensor:
    """[N, K] -> its 128x128 blocks one under another, [N K / 128, 128]."""
    return w.unflatten(1, (-1, 128)).unflatten(0, (-1, 128)).permute(0, 2, 1, 3).reshape(-1, 128)


def _from_blocks(blocks: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    rows, cols = like.shape
    return blocks.view(rows // 128, cols // 128, 128, 128).permute(0, 2, 1, 3).reshape(rows, cols)
