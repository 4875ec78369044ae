"""Configuration records, and the only reader of the environment.

ModelConfig is a checkpoint's config.json, checked and in our words: parsing and the refusals live
in model/revision.py; here are only values that have already been found to make sense. EngineConfig
may say "auto"; engine/capacity.py decides. ServerConfig is what `isobath serve` was asked for; the
flags that fill it are in server/flags.py.

The environment holds diagnostics and a secret, and these are all; an explicit argument goes before
it:

    variable         values              meaning
    ISOBATH_CHECK    off, idle, step     when the engine audits its pages and slots (default off)
    ISOBATH_CACHE    a folder            where verdicts of the doctor are kept (default: isobath in
                                         XDG_CACHE_HOME, or in ~/.cache)
    ISOBATH_API_KEY  a key               what --api-key names, kept out of process lists
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from isobath.errors import ConfigError

VARIABLES = ("ISOBATH_CHECK", "ISOBATH_CACHE", "ISOBATH_API_KEY")
CHECKS = ("off", "idle", "step")
GRAMMARS = ("auto", "xgrammar", "guidance")
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


def see_only_gpu(index: int) -> None:
    """Hide all GPUs from this process but the index-th of those that it may see so far. To be
    called before torch first looks for one; nothing of another GPU's memory is touched then."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        seen = os.environ.get(name, "").split(",")
        if seen != [""]:
            # an index that is not there leaves no GPU, of which target.py knows what to say
            os.environ[name] = seen[index].strip() if index < len(seen) else ""
        elif name == "CUDA_VISIBLE_DEVICES":  # torch reads it for AMD GPUs, too
            os.environ[name] = str(index)


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
    structured_outputs: the library behind requests with a structure, "xgrammar", "guidance", or
    "auto": the first that is installed and enforces all that the structure says.
    batch_invariant: choose only kernels whose result for a row does not depend on the others; off
    lets faster ones of libraries in. max_model_len: most tokens of a prompt and its completion;
    "auto": as many as the model and the cache allow. enforce_eager: capture no graphs.
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
    max_model_len: int | Auto = "auto"
    enforce_eager: bool = False
    structured_outputs: str = "auto"

    def __post_init__(self) -> None:
        if self.max_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"max_batched_tokens={self.max_batched_tokens}",
                found=f"max_num_seqs={self.max_num_seqs}",
                effect="running sequences would wait for a place in the step",
                do="raise max_batched_tokens or lower max_num_seqs",
            )
        least = dict.fromkeys(("max_batched_tokens", "max_num_seqs", "num_pages"), 1)
        for name, smallest in (least | {"max_model_len": 1, "num_snapshots": 0}).items():
            value = getattr(self, name)
            if value != "auto" and value < smallest:
                what = "be positive" if smallest else "not be negative"
                raise ConfigError(f"{name} must {what}", found=str(value))
        if not 0 < self.gpu_memory_utilization <= 1:
            found = str(self.gpu_memory_utilization)
            raise ConfigError("gpu_memory_utilization must lie in (0, 1]", found=found)
        if self.structured_outputs not in GRAMMARS:
            known = ", ".join(GRAMMARS)
            asked = f"structured_outputs={self.structured_outputs!r}"
            raise ConfigError(asked, found=f"known: {known}")
        if self.check not in CHECKS:
            raise ConfigError(f"check={self.check!r}", found="known: " + ", ".join(CHECKS))


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What a server was asked for. Every field is the flag of its name (server/flags.py has the
    help texts); these say more:

    model: a checkpoint's folder, a name on the Hugging Face hub, or None for the bundled one.
    host, port: of TCP, unless uds names a socket's path; port 0 is any free one. api_key: those
    that are accepted; none: everybody is. served_model_name: what clients call the model, the
    first one is answered; none: the checkpoint's. chat_format: "v4", "v4-0731", or None: by the
    hash of the checkpoint's encoder. default_chat_template_kwargs: as if each request named them.
    sse_keep_alive_interval: seconds between comments in a silent stream, 0 is never; None: never
    for completions and chat, every 10 s elsewhere. max_num_queued_reqs, max_num_queued_tokens: that
    may wait before new requests are refused; None: any number. server_dev_mode: also what only
    those who measure need (server/development.py). shutdown_timeout: seconds that open
    requests have after SIGTERM. disable_access_log_for_endpoints: paths. generation_config: "auto":
    the checkpoint's defaults of sampling, "vllm": none. override_generation_config: goes before
    them. device_ids: GPUs, one an engine; none: as the machine has them. ray: serve on a Ray
    cluster; ray_max_replicas: engines that it may start under load, None: data_parallel_size.
    load_format: "auto" or "dummy". threads: CPU threads of an engine, None: torch decides, 1 for
    the bundled model. allow_failed_verdicts: serve although the doctor found a kernel wrong here.
    """

    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    root_path: str = ""
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    allowed_origins: tuple[str, ...] = ()
    api_key: tuple[str, ...] = ()
    served_model_name: tuple[str, ...] = ()
    chat_format: str | None = None
    default_chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    completions_add_bos: bool = False
    sanitize_user_text: bool = False
    max_logprobs: int = 20
    generation_config: str = "auto"
    override_generation_config: Mapping[str, Any] = field(default_factory=dict)
    stream_interval: int = 1
    sse_keep_alive_interval: float | None = None
    max_num_queued_reqs: int | None = None
    max_num_queued_tokens: int | None = None
    max_body_bytes: int = 32 << 20
    server_dev_mode: bool = False
    shutdown_timeout: float = 30.0
    enable_log_requests: bool = False
    enable_log_outputs: bool = False
    disable_log_stats: bool = False
    log_level: str = "info"
    uvicorn_log_level: str = "info"
    disable_uvicorn_access_log: bool = False
    disable_access_log_for_endpoints: tuple[str, ...] = ()
    otlp_traces_endpoint: str | None = None
    data_parallel_size: int = 1
    device_ids: tuple[int, ...] = ()
    ray: bool = False
    ray_max_replicas: int | None = None
    revision: str | None = None
    download_dir: str | None = None
    numerics: str = "native"
    dialect: str = "auto"
    device: str = "auto"
    load_format: str = "auto"
    threads: int | None = None
    allow_failed_verdicts: bool = False
    engine: EngineConfig = field(default_factory=lambda: EngineConfig(max_batched_tokens=512))

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ConfigError("port must be from 0 to 65535", found=str(self.port))
        least = dict.fromkeys(("stream_interval", "data_parallel_size"), 1)
        for name in ("max_logprobs", "shutdown_timeout", "sse_keep_alive_interval"):
            least[name] = 0
        for name in ("max_num_queued_reqs", "max_num_queued_tokens"):
            least[name] = 0
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ConfigError(f"{name} must be at least {smallest}", found=str(value))
        if self.ray_max_replicas is not None and self.ray_max_replicas < self.data_parallel_size:
            raise ConfigError(
                f"ray_max_replicas={self.ray_max_replicas}",
                found=f"data_parallel_size={self.data_parallel_size}",
                do="raise it: replicas grow from the one to the other",
            )
        if bool(self.ssl_keyfile) != bool(self.ssl_certfile):
            raise ConfigError(
                "TLS",
                found="one of ssl_keyfile and ssl_certfile",
                effect="connections could not be encrypted",
                do="pass both",
            )
