"""The flags of `isobath serve`, one row each.

Names are vLLM's wherever it has one, so that a recipe runs with `vllm serve` replaced. A row names
the field that the flag fills; a row without one is of a flag that recipes carry and isobath has
nothing to do for: it is taken, and answered by one line that says why. What values mean is in
server/flag_values.py, how a command line is read in server/command.py. Imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flag:
    """names: as typed. kind: int, float, str; bool is a switch, which with off has a name to turn
    it off; list takes several values; dict takes JSON and dotted keys. field: of ServerConfig, or
    "engine.x" of its EngineConfig; "": ignored, with `why` in the log, as a warning if `loud`."""

    names: tuple[str, ...]
    kind: type = str
    field: str = ""
    help: str = ""
    panel: str = ""
    off: str = ""
    why: str = ""
    loud: bool = False

    @property
    def key(self) -> str:
        """The parameter's name."""
        return self.names[0].lstrip("-").replace("-", "_")


def _rows(panel: str, *rows: tuple[str, type, str, str]) -> tuple[Flag, ...]:
    """(names, kind, field, help); a name after a slash turns a switch off."""
    flags = []
    for names, kind, name, text in rows:
        on, _, off = names.partition("/")
        flags.append(Flag(tuple(on.split()), kind, name, text, panel, off))
    return tuple(flags)


def _ignored(why: str, kind: type, names: str, *, loud: bool = False) -> tuple[Flag, ...]:
    """Rows of flags that are accepted only; a bar stands before other names of one. Switches may
    also be turned off."""
    rows = [tuple(row.split("|")) for row in names.split()]
    return tuple(
        Flag(row, kind, why=why, loud=loud, off=f"--no-{row[0][2:]}" if kind is bool else "")
        for row in rows
    )


ADDRESS = _rows(
    "Address",
    ("--host", str, "host", "Address to listen on; 0.0.0.0 is every one."),
    ("--port", int, "port", "0 is any free one."),
    ("--uds", str, "uds", "Listen on this Unix socket instead."),
    ("--root-path", str, "root_path", "Prefix under which a proxy has it."),
    ("--ssl-keyfile", str, "ssl_keyfile", "Key for TLS."),
    ("--ssl-certfile", str, "ssl_certfile", "Certificate for TLS."),
    ("--allowed-origins", list, "allowed_origins", "Web origins (CORS); * is every one."),
    ("--api-key", list, "api_key", "Keys that clients may use; also ISOBATH_API_KEY."),
    ("--shutdown-timeout", float, "shutdown_timeout", "Seconds for open requests at SIGTERM."),
)
MODEL = _rows(
    "Model",
    ("--served-model-name", list, "served_model_name", "What clients may call it."),
    ("--revision", str, "revision", "Branch, tag or commit on the Hugging Face hub."),
    ("--download-dir", str, "download_dir", "Where downloads are kept."),
    ("--load-format", str, "load_format", "auto, or dummy: random weights."),
    ("--max-model-len", str, "engine.max_model_len", "Tokens: 8192, 128k, 1M; auto or -1."),
    ("--numerics", str, "numerics", "native, or exact: fp32 throughout."),
    ("--dialect", str, "dialect", "FP8 in memory: auto, ocp or fnuz."),
    ("--chat-format", str, "chat_format", "v4 or v4-0731, instead of the checkpoint's."),
    ("--allow-failed-verdicts", bool, "allow_failed_verdicts", "Serve though doctor says no."),
)
ENGINE = _rows(
    "Engine",
    ("--data-parallel-size -dp", int, "data_parallel_size", "Engines, one a GPU."),
    ("--ray", bool, "ray", "Engines are replicas on a Ray cluster."),
    ("--ray-max-replicas", int, "ray_max_replicas", "As many as that under load."),
    ("--device", str, "device", "auto, gpu or cpu."),
    ("--device-ids", list, "device_ids", "GPUs to use, such as 0,1."),
    ("--threads", int, "threads", "CPU threads of an engine."),
    ("--max-num-seqs", int, "engine.max_num_seqs", "Sequences that run at once."),
    ("--max-num-batched-tokens", int, "engine.max_batched_tokens", "Tokens of a step."),
    ("--gpu-memory-utilization", float, "engine.gpu_memory_utilization", "Share to fill."),
    ("--kv-cache-memory-bytes", int, "engine.cache_bytes", "For caches, instead of a share."),
    ("--num-gpu-blocks-override", int, "engine.num_pages", "Pages of the cache."),
    (
        "--enable-prefix-caching/--no-enable-prefix-caching",
        bool,
        "engine.prefix_caching",
        "Start prompts from cached blocks.",
    ),
    ("--enforce-eager", bool, "engine.enforce_eager", "Capture no graphs."),
    (
        "--structured-outputs-config",
        dict,
        "engine.structured_outputs",
        "auto, xgrammar or guidance; or JSON with that as its backend.",
    ),
)
REQUESTS = _rows(
    "Requests",
    ("--default-chat-template-kwargs", dict, "default_chat_template_kwargs", "JSON."),
    ("--completions-add-bos", bool, "completions_add_bos", "Begin text prompts with BOS."),
    ("--sanitize-user-text", bool, "sanitize_user_text", "No control tokens from users' text."),
    ("--max-logprobs", int, "max_logprobs", "Most that a request may ask for."),
    ("--generation-config", str, "generation_config", "auto: the checkpoint's; vllm: none."),
    ("--override-generation-config", dict, "override_generation_config", "JSON."),
    ("--stream-interval", int, "stream_interval", "Tokens a chunk."),
    ("--sse-keep-alive-interval", float, "sse_keep_alive_interval", "Seconds; 0 is never."),
    ("--max-num-queued-reqs", int, "max_num_queued_reqs", "Waiting; more are refused."),
    ("--max-num-queued-tokens", int, "max_num_queued_tokens", "Waiting; more are refused."),
    ("--server-dev-mode", bool, "server_dev_mode", "POST /reset_prefix_cache, for measurements."),
)
LOGS = _rows(
    "Logs",
    ("--log-level", str, "log_level", "debug, info, warning or error."),
    ("--enable-log-requests/--no-enable-log-requests", bool, "enable_log_requests", "With text."),
    ("--enable-log-outputs", bool, "enable_log_outputs", "With the answer's text."),
    ("--disable-log-stats", bool, "disable_log_stats", "No line every ten seconds."),
    ("--uvicorn-log-level", str, "uvicorn_log_level", "Of the HTTP server."),
    ("--disable-uvicorn-access-log", bool, "disable_uvicorn_access_log", "No line a request."),
    (
        "--disable-access-log-for-endpoints",
        list,
        "disable_access_log_for_endpoints",
        "Paths without one, such as /health,/metrics.",
    ),
    ("--otlp-traces-endpoint", str, "otlp_traces_endpoint", "Send OpenTelemetry traces there."),
)
CHECKED = (
    Flag(("--tensor-parallel-size", "-tp"), int, help="Only 1.", panel="Engine"),
    Flag(("--pipeline-parallel-size", "-pp"), int, help="Only 1.", panel="Engine"),
    Flag(("--dtype",), help="auto or bfloat16.", panel="Model"),
    Flag(("--kv-cache-dtype",), help="auto or fp8.", panel="Engine"),
    Flag(("--no-thinking",), bool, help="Chat without reasoning by default.", panel="Requests"),
)
"""What flag_values.py looks at itself."""

IGNORED = (
    *_ignored("the checkpoint decides", bool, "--trust-remote-code --enable-auto-tool-choice"),
    *_ignored(
        "the checkpoint decides",
        str,
        "--tokenizer --tokenizer-mode --tool-call-parser --reasoning-parser --quantization|-q "
        "--tokenizer-revision --code-revision "
        "--chat-template --chat-template-content-format --config-format --hf-config-path",
    ),
    *_ignored("the checkpoint decides", dict, "--hf-overrides --reasoning-config"),
    *_ignored(
        "kernels are chosen by the doctor's verdicts",
        str,
        "--moe-backend --attention-backend --linear-backend --performance-mode",
    ),
    *_ignored("kernels are chosen by the doctor's verdicts", bool, "--enable-flashinfer-autotune"),
    *_ignored(
        "kernels are chosen by the doctor's verdicts", dict, "--attention-config --kernel-config"
    ),
    *_ignored(
        "decode graphs are captured for every size that can occur",
        list,
        "--cudagraph-capture-sizes",
    ),
    *_ignored(
        "decode graphs are captured for every size that can occur",
        int,
        "--max-cudagraph-capture-size --max-seq-len-to-capture",
    ),
    *_ignored(
        "decode graphs are captured for every size that can occur",
        dict,
        "--compilation-config|-cc|-O",
    ),
    *_ignored("pages have one size", int, "--block-size"),
    *_ignored("pages have one size", bool, "--disable-hybrid-kv-cache-manager"),
    *_ignored("pages have one size", str, "--prefix-caching-hash-algo --mamba-cache-mode"),
    *_ignored("each engine is one process", str, "--distributed-executor-backend"),
    *_ignored("each engine is one process", int, "--api-server-count --data-parallel-size-local"),
    *_ignored("each engine is one process", bool, "--disable-frontend-multiprocessing"),
    *_ignored(
        "each GPU holds all experts",
        bool,
        "--enable-expert-parallel|-ep --enable-eplb --enable-dbo",
    ),
    *_ignored("each GPU holds all experts", str, "--all2all-backend --expert-placement-strategy"),
    *_ignored("it is always so", bool, "--async-scheduling --enable-chunked-prefill"),
    *_ignored("it is always so", bool, "--enable-prompt-tokens-details --language-model-only"),
    *_ignored("it is always so", bool, "--enable-request-id-headers --disable-fastapi-docs"),
    *_ignored("it is always so", bool, "--enable-tokenizer-info-endpoint"),
    *_ignored("it is always so", bool, "--enable-server-load-tracking"),
    *_ignored("an engine runs on one GPU", bool, "--disable-custom-all-reduce"),
    *_ignored("the model reads text alone", dict, "--limit-mm-per-prompt --mm-processor-kwargs"),
    *_ignored("requests are logged without their text", bool, "--disable-log-requests"),
    *_ignored("a request draws by its own seed", int, "--seed"),
    *_ignored("weights are read in one way", str, "--safetensors-load-strategy"),
    *_ignored("weights are read in one way", dict, "--model-loader-extra-config"),
    *_ignored("nothing is swapped", float, "--swap-space --cpu-offload-gb"),
    *_ignored(
        "not built: tokens are generated one by one", dict, "--speculative-config|-sc", loud=True
    ),
    *_ignored("not built", dict, "--kv-events-config --kv-transfer-config", loud=True),
    *_ignored("meant for another platform", dict, "--additional-config", loud=True),
)
FLAGS = (*ADDRESS, *MODEL, *ENGINE, *REQUESTS, *LOGS, *CHECKED, *IGNORED)
