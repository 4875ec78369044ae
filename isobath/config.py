"""Configuration records, and the only reader of the environment.

ModelConfig is a checkpoint's config.json, checked and in our words: parsing and the refusals live
in model/revision.py; here are only values that have already been found to make sense. EngineConfig
may say "auto"; engine/capacity.py decides.

The environment holds diagnostics only, and these are all; an explicit argument goes before it:

    variable         values              meaning
    ISOBATH_CHECK    off, idle, step     when the engine audits its pages and slots (default off)
    ISOBATH_CACHE    a folder            where verdicts of the doctor are kept (default: isobath in
                                         XDG_CACHE_HOME, or in ~/.cache)
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from isobath.errors import ConfigError

VARIABLES = ("ISOBATH_CHECK", "ISOBATH_CACHE")
CHECKS = ("off", "idle", "step")
Auto = Literal["auto"]


def variable(name: str, default: str) -> str:
    """An ISOBATH_* variable of VARIABLES. Raises ConfigError when one is set that does not exist:
    a diagnostic that is misspelled would silently diagnose nothing."""
    assert name in VARIABLES, name
    for other in os.environ:
        if other.startswith("ISOBATH_") and other not in VARIABLES:
            near = get_close_matches(other, VARIABLES, 1, 0)[0]
            raise ConfigError(
                f"the environment sets {other}",
                found="isobath reads " + ", ".join(VARIABLES),
                effect="it would be ignored",
                do=f"unset it; perhaps {near} was meant",
            )
    return os.environ.get(name, default)


def cache_folder() -> Path:
    """Where this user's measurements are kept between runs; it need not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(variable("ISOBATH_CACHE", str(Path(base) / "isobath")))


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
    """How much an engine takes on at once, and how it is watched.

    max_batched_tokens: most tokens of one step. max_num_seqs: most sequences running. num_pages: of
    the cache, PAGE_TOKENS tokens each; "auto": as many as the memory holds. num_snapshots: states
    kept for the prefix cache; "auto": half of max_num_seqs. prefix_caching: whether prompts may
    start from cached blocks. gpu_memory_utilization: share of a GPU's memory that weights and
    caches may fill; the rest is for activations. cache_bytes: all that the caches may take, instead
    of that share; "auto" on a CPU: see engine/capacity.py. check: assert that every page and slot
    is free or owned "off": never, "idle": when nothing is left to do, or "step": after every step.
    static_metadata: compute decode steps' index tensors on the device; off is for comparison.
    parallel_branches: run independent parts of a decode step side by side on a GPU; off is for
    comparison.
    batch_invariant: choose only kernels whose result for a row does not depend on the others; off
    lets faster ones of libraries in.
    """

    max_batched_tokens: int = 512
    max_num_seqs: int = 64
    num_pages: int | Auto = "auto"
    num_snapshots: int | Auto = "auto"
    prefix_caching: bool = True
    gpu_memory_utilization: float = 0.92
    cache_bytes: int | Auto = "auto"
    check: str = field(default_factory=lambda: variable("ISOBATH_CHECK", "off"))
    static_metadata: bool = True
    parallel_branches: bool = True
    batch_invariant: bool = True

    def __post_init__(self) -> None:
        if self.max_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"max_batched_tokens={self.max_batched_tokens}",
                found=f"max_num_seqs={self.max_num_seqs}",
                effect="running sequences would wait for a place in the step",
                do="raise max_batched_tokens or lower max_num_seqs",
            )
        least = {"max_batched_tokens": 1, "max_num_seqs": 1, "num_pages": 1, "num_snapshots": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value != "auto" and value < smallest:
                what = "be positive" if smallest else "not be negative"
                raise ConfigError(f"{name} must {what}", found=str(value))
        if not 0 < self.gpu_memory_utilization <= 1:
            found = str(self.gpu_memory_utilization)
            raise ConfigError("gpu_memory_utilization must lie in (0, 1]", found=found)
        if self.check not in CHECKS:
            raise ConfigError(f"check={self.check!r}", found="known: " + ", ".join(CHECKS))
