"""How much cache an engine gets: every "auto" of an EngineConfig decided, each with its source.

Memory is divided in this order: a slot for each sequence that may run (and slot 0), the snapshots
of the prefix cache, the staging rows of the largest step, and pages (and page 0) from all that is
left. Weights are loaded before this is asked, so they count as used. Byte counts are those of
cache/pool.py; a test compares their sum with the pool that is really allocated.

On a GPU the caches fill up to gpu_memory_utilization of the whole memory, what is in use already
included; what is left beyond that is for activations, graphs and the runtime. On a CPU they take
CPU_SHARE of the machine's memory. Neither allocates more pages than every sequence that may run
needs at the model's longest context.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from isobath.cache.pool import (
    PAGE_TOKENS,
    page_bytes,
    slot_bytes,
    snapshot_bytes,
    staging_bytes,
)
from isobath.config import EngineConfig, ModelConfig
from isobath.engine.scheduler import pages_for
from isobath.errors import ConfigError
from isobath.target import device_memory

CPU_SHARE = 1 / 8
"""Of a machine that has other things to do: 2 GiB of 16."""
LEAST_SNAPSHOTS = 4
"""So that a single user's few conversations do not displace each other."""
MIB = 1 << 20
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an engine's caches hold.

    num_pages: of PAGE_TOKENS tokens each, page 0 not counted. max_num_seqs: slots, slot 0 not
    counted. context: most tokens of one request. page_bytes: of one page in all layers. nbytes: of
    the whole pool. source: where num_pages comes from, for people.
    """

    num_pages: int
    num_snapshots: int
    max_num_seqs: int
    context: int
    page_bytes: int
    nbytes: int
    source: str

    @property
    def tokens(self) -> int:
        """Tokens whose compressed entries fit."""
        return self.num_pages * PAGE_TOKENS

    @property
    def token_bytes(self) -> float:
        """Bytes that one more token takes: 3,850.25 for V4-Flash."""
        return self.page_bytes / PAGE_TOKENS

    @property
    def concurrency(self) -> float:
        """Requests of `context` tokens that can run at once: as many as find pages, and never more
        than there are slots."""
        return min(self.num_pages / pages_for(self.context), float(self.max_num_seqs))

    def report(self) -> tuple[str, str]:
        """Two lines: vLLM's, which tools parse, and what it was decided from."""
        return (
            f"GPU KV cache size: {self.tokens:,} tokens, Maximum concurrency for "
            f"{self.context:,} tokens per request: {self.concurrency:.2f}x",
            f"caches: {self.nbytes / MIB:,.1f} MiB in {self.num_pages:,} pages "
            f"({self.token_bytes:,.2f} B a token), {self.max_num_seqs:,} slots, "
            f"{self.num_snapshots:,} snapshots; {self.source}",
        )

    def announce(self) -> None:
        """Log the report at INFO."""
        for line in self.report():
            log.info(line)


def resolve(
    config: ModelConfig, options: EngineConfig, *, plain: bool, device: torch.device
) -> Capacity:
    """Decide every "auto" of `options`. plain: the caches hold fp32 rows (numerics="exact").

    Raises ConfigError when the memory does not hold the slots and one page.
    """
    snapshots = max(LEAST_SNAPSHOTS, options.max_num_seqs // 2)
    if isinstance(options.num_snapshots, int):
        snapshots = options.num_snapshots
    if not options.prefix_caching:
        snapshots = 0
    page = page_bytes(config, plain=plain)
    fixed = (
        (options.max_num_seqs + 1) * slot_bytes(config, plain=plain)
        + snapshots * snapshot_bytes(config, plain=plain)
        + options.max_batched_tokens * staging_bytes(config, plain=plain)
        + page  # page 0
    )
    if isinstance(options.num_pages, int):
        pages, source = options.num_pages, "num_pages was given"
    else:
        pages, source = _fill(config, options, (fixed, page), device)
    return Capacity(
        num_pages=pages,
        num_snapshots=snapshots,
        max_num_seqs=options.max_num_seqs,
        context=_context(config, options, pages, source),
        page_bytes=page,
        nbytes=fixed + pages * page,
        source=source,
    )


def _context(config: ModelConfig, options: EngineConfig, pages: int, source: str) -> int:
    """Most tokens of one request."""
    asked, held = options.max_model_len, pages * PAGE_TOKENS
    if asked == "auto":
        return min(config.max_position_embeddings, held)
    if asked > config.max_position_embeddings:
        raise ConfigError(
            f"max_model_len={asked:,}",
            found=f"the model was made for {config.max_position_embeddings:,} tokens",
            effect="positions beyond that mean nothing to it",
            do='lower max_model_len, or pass "auto"',
        )
    if asked > held:
        raise ConfigError(
            f"max_model_len={asked:,}",
            found=f"caches that hold {held:,} tokens ({source})",
            effect="a request of that length could never run",
            do=f"lower max_model_len to {held:,} or max_num_seqs, or raise gpu_memory_utilization",
        )
    return asked


def _fill(
    config: ModelConfig, options: EngineConfig, size: tuple[int, int], device: torch.device
) -> tuple[int, str]:
    """(pages that fit, why). size: (bytes besides pages, bytes of a page)."""
    fixed, page = size
    longest = config.max_position_embeddings
    if isinstance(options.max_model_len, int):
        longest = min(longest, options.max_model_len)
    most = options.max_num_seqs * pages_for(longest)
    budget, source = _budget(options, device)
    if budget < fixed + page:
        raise ConfigError(
            f"caches for {options.max_num_seqs} sequences in {source}",
            found=f"{budget / MIB:,.1f} MiB, and they need {(fixed + page) / MIB:,.1f} MiB "
            "before the first page of tokens",
            effect="no request could run",
            do="lower max_num_seqs, max_batched_tokens or num_snapshots, or give more memory",
        )
    fit = (budget - fixed) // page if page else most
    if fit >= most:
        return most, f"every sequence at its longest, within {source}"
    return fit, source


def _budget(options: EngineConfig, device: torch.device) -> tuple[int, str]:
    """(bytes for all caches, where that figure comes from)."""
    if isinstance(options.cache_bytes, int):
        return options.cache_bytes, f"cache_bytes of {options.cache_bytes / MIB:,.1f} MiB"
    free, total = device_memory(device)
    if device.type == "cpu":
        return int(CPU_SHARE * total), f"{CPU_SHARE:.2%} of {total / MIB:,.0f} MiB of memory"
    share, used = options.gpu_memory_utilization, total - free
    source = f"{share:.0%} of {total / MIB:,.0f} MiB, {used / MIB:,.0f} MiB of them in use"
    return int(share * total) - used, source
