"""Runner: the one way in which an engine computes a step, whatever the device.

Prefill and mixed steps are laid out by model/batch.py and run eagerly. A step in which every
sequence has one token (decode) goes through the static buffers of engine/metadata.py: on a GPU
padded to a bucket and replayed as a captured graph (engine/graphs.py), on a CPU eagerly and in its
exact size, because nothing is captured there.

`static_metadata` off is there to be compared with: decode steps too are laid out on the host. So is
`parallel_branches` off: a GPU's decode steps are one chain of launches then.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from isobath.cache.pool import PAGE_TOKENS, CachePool
from isobath.config import EngineConfig, ModelConfig
from isobath.engine.graphs import DecodeGraphs
from isobath.engine.metadata import DecodeMetadata
from isobath.model.aside import Aside, SideStream, at_once
from isobath.model.batch import Batch, BatchBuilder, Chunk
from isobath.model.v4 import forward
from isobath.model.weights import ModelWeights
from isobath.ops.table import OpTable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step computed. logits: float32 [L, vocab], one row for each token whose logits were
    wanted, on the device and until the next step only. greedy: the best token of each row."""

    logits: torch.Tensor
    greedy: list[int]

    def on_host(self, rows: Sequence[int]) -> torch.Tensor:
        """These rows, ascending, on the CPU: one copy for all of them, none where there is none to
        make."""
        if len(rows) == len(self.logits):
            return self.logits.to("cpu")
        if not rows:
            return torch.empty(0, self.logits.shape[1])
        index = torch.tensor(rows, device=self.logits.device)
        return self.logits.index_select(0, index).to("cpu")


class Runner:
    """Computes the steps of one engine over its pool."""

    def __init__(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        ops: OpTable,
        pool: CachePool,
        device: torch.device,
        options: EngineConfig,
    ) -> None:
        self.config, self.weights, self.ops, self.pool = config, weights, ops, pool
        self.builder = BatchBuilder(config, pool, device)
        self.metadata = DecodeMetadata(
            config,
            pool,
            ops,
            device,
            max_lanes=options.max_num_seqs,
            max_context=min(config.max_position_embeddings, (pool.pages - 1) * PAGE_TOKENS),
        )
        self.static = options.static_metadata
        parallel = options.parallel_branches and device.type == "cuda"
        self.aside: Aside = SideStream(device) if parallel else at_once
        capture = device.type == "cuda" and not options.enforce_eager
        self.graphs = self._captured(device) if capture else None

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> StepOutput:
        """Compute one step of chunks of different sequences; advances the caches."""
        if self.graphs is not None and is_decode(chunks):
            shape = self.graphs.shape_for(chunks)
            if self.static:
                self.metadata.fill(chunks, shape)
            else:
                self.metadata.copy(self.builder.build(chunks), shape)
            return StepOutput(*self.graphs.replay(shape, len(chunks)))
        if self.static and is_decode(chunks):
            shape = self.metadata.shape_of(chunks)
            self.metadata.fill(chunks, shape)
            logits = self.forward(self.metadata.compute(shape))
        else:
            logits = self.forward(self.builder.build(chunks))
        return StepOutput(logits, logits.argmax(-1).tolist())

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits float32 [L, vocab] of one step; advances the caches."""
        aside = self.aside if batch.single else at_once  # prompts fill the machine as they are
        return forward(self.config, self.weights, self.ops, self.pool, batch, aside=aside)

    @torch.inference_mode()
    def _captured(self, device: torch.device) -> DecodeGraphs:
        """Every bucket captured, checked and reported."""
        graphs = DecodeGraphs(
            self.config, self.metadata, self.pool, self.forward, device, static=self.static
        )
        for line in graphs.prepare().lines():
            log.info(line)
        return graphs


def is_decode(chunks: Sequence[Chunk]) -> bool:
    """Whether every chunk is one token whose logits are wanted."""
    return all(len(c.token_ids) == 1 and c.logits != "none" for c in chunks)
