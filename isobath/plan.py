"""Does it fit? Bytes of weights and of cache against a GPU's memory, before anything is downloaded.

Pure arithmetic on a ModelConfig: the checkpoint's inventory counts the weights as published
(draft layers left out, since isobath runs none), cache/layout.py the bytes of a row. What cannot be
counted, activations and the runtime, is one number: the reserve. Pages round up and are not
counted. torch is not imported until the inventory is asked.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from isobath.cache.layout import index_row, kv_row
from isobath.config import ModelConfig
from isobath.errors import ConfigError

GIB = 1 << 30
MIB = 1 << 20
FLOAT_BYTES = 4
OVERLAP = 2
"""A ratio-4 entry pools two windows, so its state has twice the rows and twice the channels."""
RESERVE_BYTES = 8 * GIB
"""Runtime, graphs and activations. An estimate until one is measured."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that can be bought. memory_bytes: of its HBM, as the driver offers it."""

    name: str
    arch: str
    memory_bytes: int


# AMD: capacity of the data sheets (MI300X 192 GB, MI325X 256 GB, MI355X 288 GB), which counts in
# units of 2^30. NVIDIA: memory.total of nvidia-smi (data sheets: 80, 141 and 180 GB of 10^9).
GPUS: dict[str, Gpu] = {
    gpu.name.lower(): gpu
    for gpu in (
        Gpu("MI300X", "gfx942", 192 * GIB),
        Gpu("MI325X", "gfx942", 256 * GIB),
        Gpu("MI355X", "gfx950", 288 * GIB),
        Gpu("H100", "sm_90", 81559 * MIB),
        Gpu("H200", "sm_90", 143771 * MIB),
        Gpu("B200", "sm_100", 183359 * MIB),
    )
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What fits, in bytes, tokens and sequences.

    cache_bytes: memory left for caches; negative when weights and reserve alone are too much.
    sequence_bytes: cache of one sequence of `context` tokens. max_sequences: how many of those fit.
    max_context: longest context at `concurrency` sequences, at most the model's; 0 if none fits.
    verdict: one sentence that says what limits.
    """

    memory_bytes: int
    weight_bytes: int
    reserve_bytes: int
    cache_bytes: int
    context: int
    concurrency: int
    sequence_bytes: int
    max_sequences: int
    max_context: int
    fits: bool
    verdict: str

    def as_dict(self) -> dict[str, int | bool | str]:
        return asdict(self)


def flash_config() -> ModelConfig:
    """The published shape of DeepSeek-V4-Flash."""
    from isobath.model.revision import parse_config

    file = Path(__file__).parent / "models" / "flash_config.json"
    return parse_config(json.loads(file.read_text(encoding="utf-8")), where="DeepSeek-V4-Flash")


@cache
def weight_bytes(config: ModelConfig) -> int:
    """Bytes of the main layers' tensors, embedding and head, in the form they are published in."""
    from isobath.model.inventory import DRAFT_PREFIX, tensors

    specs = tensors(config).items()
    return sum(spec.nbytes for name, spec in specs if not name.startswith(DRAFT_PREFIX))


def kv_bytes(config: ModelConfig, tokens: int) -> int:
    """Cache bytes of one sequence of `tokens` tokens, over all layers.

    Every layer keeps a window of rows; a layer of ratio r also keeps one row for each r tokens and
    the inputs (fp32 key and gate of each channel) of the entries that are not complete yet; ratio 4
    keeps those for the indexer, too.
    """
    row = kv_row(config.head_dim, config.qk_rope_head_dim).row_bytes
    index = index_row(config.index_head_dim).row_bytes
    total = len(config.compress_ratios) * min(tokens, config.sliding_window) * row
    for ratio in config.compress_ratios:
        if ratio == 4:
            widths = OVERLAP * (config.head_dim + config.index_head_dim)
            total += tokens // ratio * (row + index)
            total += min(tokens, OVERLAP * ratio) * 2 * widths * FLOAT_BYTES
        elif ratio:
            total += tokens // ratio * row
            total += min(tokens, ratio) * 2 * config.head_dim * FLOAT_BYTES
    return total


def plan(
    config: ModelConfig,
    memory_bytes: int,
    *,
    context: int,
    concurrency: int = 1,
    reserve: int = RESERVE_BYTES,
) -> Plan:
    """Fit `concurrency` sequences of `context` tokens and the weights into `memory_bytes`.

    Raises ConfigError for a context or concurrency below 1, or beyond the model's positions.
    """
    if not 1 <= context <= config.max_position_embeddings or concurrency < 1 or reserve < 0:
        raise ConfigError(
            f"plan: {concurrency} sequences of {context:,} tokens, reserve {reserve:,} bytes",
            found=f"the model has {config.max_position_embeddings:,} positions",
            effect="there is no such workload",
            do="ask for at least one sequence and a context within the model's positions",
        )
    weights, sequence = weight_bytes(config), kv_bytes(config, context)
    left = memory_bytes - weights - reserve
    most = max(left, 0) // sequence
    longest = _longest(config, max(left, 0) // concurrency)
    return Plan(
        memory_bytes=memory_bytes,
        weight_bytes=weights,
        reserve_bytes=reserve,
        cache_bytes=left,
        context=context,
        concurrency=concurrency,
        sequence_bytes=sequence,
        max_sequences=most,
        max_context=longest,
        fits=most >= concurrency,
        verdict=_verdict(memory_bytes - weights, reserve, (most, concurrency), (longest, context)),
    )


def gpu(name: str) -> Gpu:
    """The row of GPUS called `name`, in any case. Raises ConfigError for an unknown one."""
    if name.lower() not in GPUS:
        raise ConfigError(
            f"no GPU called {name!r} is known",
            found=", ".join(GPUS),
            do="pass one of these, or --memory-gib with the memory of your device",
        )
    return GPUS[name.lower()]


def parse_tokens(text: str) -> int:
    """A number of tokens: "8192", "128k" (131,072) or "1m" (1,048,576). Raises ConfigError."""
    match = re.fullmatch(r"(\d+)([km]?)", text.strip().lower().replace(",", "").replace("_", ""))
    if not match:
        raise ConfigError(
            f"context {text!r} is no number of tokens", do="write it as 8192, 128k or 1m"
        )
    return int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2]]


def _longest(config: ModelConfig, budget: int) -> int:
    """Largest number of tokens whose cache is at most `budget` bytes."""
    low, high = 0, config.max_position_embeddings
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if kv_bytes(config, middle) <= budget else (low, middle - 1)
    return low


def _verdict(
    beside_weights: int, reserve: int, sequences: tuple[int, int], context: tuple[int, int]
) -> str:
    (most, concurrency), (longest, asked) = sequences, context
    if beside_weights < 0:
        return f"does not fit: the weights alone need {-beside_weights / GIB:.2f} GiB more"
    if beside_weights < reserve:
        return (
            f"does not fit: the weights leave {beside_weights / GIB:.2f} GiB of the "
            f"{reserve / GIB:.2f} GiB reserve"
        )
    if most >= concurrency:
        return f"fits: {most:,} sequences of {asked:,} tokens"
    if longest:
        return (
            f"the cache limits: {most:,} of {concurrency:,} sequences fit at {asked:,} tokens, "
            f"all of them at {longest:,}"
        )
    return f"the cache limits: {most:,} of {concurrency:,} sequences fit at {asked:,} tokens"
