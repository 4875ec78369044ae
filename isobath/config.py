"""Configuration records. ModelConfig is a checkpoint's config.json, checked and in our words.

Parsing and the refusals live in model/revision.py; here are only values that have already been
found to make sense.
"""

from __future__ import annotations

from dataclasses import dataclass

from isobath.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """theta: base on window-only layers. compress_theta: base on layers with a compressor, to which
    alone YaRN applies (factor 1: none)."""

    theta: float
    compress_theta: float
    factor: float
    original_max_position: int
    beta_fast: float
    beta_slow: float


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A DeepSeek-V4 model's shape. Field names are those of config.json.

    compress_ratios: one of 0, 4, 128 for each of num_hidden_layers layers (the file's list also
    covers draft layers; those entries are in draft_ratios). draft: "none", "mtp" or "dspark".
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    qk_rope_head_dim: int
    q_lora_rank: int
    o_groups: int
    o_lora_rank: int
    compress_ratios: tuple[int, ...]
    draft_ratios: tuple[int, ...]
    sliding_window: int
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    num_hash_layers: int
    routed_scaling_factor: float
    swiglu_limit: float
    hc_mult: int
    hc_sinkhorn_iters: int
    hc_eps: float
    rms_norm_eps: float
    rope: RopeConfig
    max_position_embeddings: int
    bos_token_id: int
    eos_token_id: int
    draft: str
    num_draft_layers: int


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How much an engine takes on at once.

    max_batched_tokens: most tokens of one step. max_num_seqs: most sequences running. num_pages: of
    the cache, PAGE_TOKENS tokens each. num_snapshots: states kept for the prefix cache.
    prefix_caching: whether prompts may start from cached blocks. check: assert after every step
    that every page and slot is free or owned.
    """

    max_batched_tokens: int = 512
    max_num_seqs: int = 64
    num_pages: int = 1024
    num_snapshots: int = 32
    prefix_caching: bool = True
    check: bool = False

    def __post_init__(self) -> None:
        if self.max_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"max_batched_tokens={self.max_batched_tokens}",
                found=f"max_num_seqs={self.max_num_seqs}",
                effect="running sequences would wait for a place in the step",
                do="raise max_batched_tokens or lower max_num_seqs",
            )
        for name in ("max_batched_tokens", "max_num_seqs", "num_pages"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be positive", found=str(getattr(self, name)))
