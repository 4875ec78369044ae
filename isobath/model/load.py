"""From a checkpoint folder to ModelWeights: check, convert, fuse, prepare.

Everything that headers can show is checked before the first weight is read. Draft tensors (`mtp.*`)
are reported once and left on disk. Reading and number formats are reader.py's business, the records
assemble.py's.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch

from isobath.config import ModelConfig
from isobath.errors import ConfigError
from isobath.model.assemble import Assembly
from isobath.model.binder import bind
from isobath.model.inventory import DRAFT_PREFIX
from isobath.model.reader import Progress, Reader
from isobath.model.revision import read_config
from isobath.model.shards import Shards, open_shards
from isobath.model.weights import ModelWeights
from isobath.numerics.dialect import Dialect
from isobath.ops.table import OpTable

NUMERICS = ("native", "exact")
SMALL_BYTES = 1 << 16
_log = logging.getLogger(__name__)


def load(
    path: str | Path,
    *,
    numerics: str,
    dialect: Dialect,
    device: torch.device,
    ops: OpTable,
    progress: Progress | None = None,
) -> tuple[ModelConfig, ModelWeights]:
    """Load the checkpoint folder `path` onto `device`.

    numerics: "native" keeps FP8 (in `dialect`), MXFP4 and bf16; "exact" widens every matrix to
    float32. ops: whose `prepare` repacks each matrix. Raises a CheckpointError before anything is
    read, NumericsError for a weight without an exact counterpart in `dialect`.
    """
    if numerics not in NUMERICS:
        raise ConfigError("load(numerics=)", found=repr(numerics), do=f"choose one of {NUMERICS}")
    config = read_config(path)
    shards = open_shards(path)
    found = shards.specs()
    specs = bind(config, found, where=str(path), label=shards.label)
    draft = [s.nbytes for name, s in found.items() if name.startswith(DRAFT_PREFIX)]
    if draft:
        _log.warning(
            "%s: %d tensors of the %s draft (%.2f GB) are not used and stay on disk",
            path,
            len(draft),
            config.draft,
            sum(draft) / 1e9,
        )
    reader = Reader(
        shards,
        specs,
        dialect=dialect,
        device=device,
        exact=numerics == "exact",
        progress=progress,
    )
    return config, Assembly(config, reader, ops, _revision(config, shards)).model()


def _revision(config: ModelConfig, shards: Shards) -> str:
    """Hash of the config, of every tensor's name, dtype and shape, and of the bytes of the small
    ones (norms, sinks, biases), which training changes all of. Large matrices are not read twice.
    """
    digest = hashlib.sha256(repr(config).encode())
    for name, spec in sorted(shards.specs().items()):
        digest.update(f"{name} {spec}\n".encode())
        if spec.nbytes <= SMALL_BYTES:
            digest.update(shards.read(name).reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
