"""From what was asked for to a backend that has answered: folder, engines, chat format, warm-up.

Nothing here knows HTTP. The lines that are logged on the way, and their order, are those that
people and scripts look for in vLLM's log; the last one is lifecycle.py's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from isobath import __version__
from isobath.chat import ChatFormat
from isobath.config import ServerConfig
from isobath.engine.async_llm import AsyncLLM
from isobath.engine.llm import BUNDLED
from isobath.engine.process import EngineSpec
from isobath.engine.sampling import SamplingParams
from isobath.errors import CheckpointError, ConfigError, IsobathError
from isobath.model.dummy import Dummy
from isobath.model.text import Text
from isobath.server.backend import Backend
from isobath.server.flag_values import Note, not_default
from isobath.server.replicas import Replicas, specs
from isobath.server.state import BUNDLED_NAME

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
WARM_UP = SamplingParams(max_tokens=2, ignore_eos=True)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a server needs before it can answer. chat: None where the checkpoint does not say how
    conversations become prompts. sampling: values for requests that leave them out."""

    backend: Backend
    chat: ChatFormat | None
    sampling: Mapping[str, Any]


def names_of(config: ServerConfig) -> tuple[str, ...]:
    """What clients may call the model: what was given, else the checkpoint's own names."""
    if config.served_model_name:
        return config.served_model_name
    if config.model is None:
        return (BUNDLED_NAME,)
    return tuple(dict.fromkeys((config.model, Path(config.model).name)))


def folder_of(config: ServerConfig) -> Path:
    """The checkpoint's folder; a name on the Hugging Face hub is looked up on disk, then fetched.
    Raises CheckpointError."""
    model = config.model
    if model is None:
        return BUNDLED
    if Path(model).exists():
        return Path(model)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise CheckpointError(
            f"serve {model}",
            found="neither a folder nor a name on the Hugging Face hub",
            do="pass the folder of a checkpoint, or owner/name",
        )
    from huggingface_hub import snapshot_download  # half a second, and most have a folder

    fetch = partial(
        snapshot_download, model, revision=config.revision, cache_dir=config.download_dir
    )
    try:
        return Path(fetch(local_files_only=True))
    except Exception as error:  # the library has many
        log.info("%s is not on this disk (%s): fetching it", model, type(error).__name__)
    try:
        return Path(fetch())
    except Exception as error:
        raise CheckpointError(
            f"fetch {model} from the Hugging Face hub",
            found=f"{type(error).__name__}: {error}",
            do="download it elsewhere and pass the folder",
        ) from error


def load(config: ServerConfig, notes: Sequence[Note] = ()) -> Loaded:
    """Load everything; blocks for as long as that takes. notes: logged after the first lines.
    Raises IsobathError."""
    folder = folder_of(config)
    chat = chat_of(config, folder, Text(folder))
    spec = replace(
        engine_spec(config, folder),
        banner=(*_banner(config, folder, chat), *((n.level, n.text) for n in notes)),
    )
    count, gpus = config.data_parallel_size, config.device_ids
    each = specs(spec, count, gpus) if count > 1 or gpus else [spec]
    backend: Backend = Replicas(each) if count > 1 else AsyncLLM.of(each[0])
    return Loaded(backend, chat, sampling_of(config, folder))


def engine_spec(config: ServerConfig, folder: Path) -> EngineSpec:
    """What an engine's process shall load."""
    return EngineSpec(
        str(folder),
        config.numerics,
        config.dialect,
        config.engine.max_batched_tokens,
        config.engine,
        device=config.device,
        dummy=_dummy(config),
        allow_failed_verdicts=config.allow_failed_verdicts,
        threads=config.threads or (1 if folder == BUNDLED else None),
    )


async def warm_up(backend: Backend, count: int) -> None:
    """A real request for each of `count` engines, at once, to its end."""

    async def one(token: int) -> None:
        async for _ in backend.generate([token], WARM_UP):
            pass

    await asyncio.gather(*(one(backend.text.bos) for _ in range(count)))


def _dummy(config: ServerConfig) -> Dummy | None:
    known = {"auto": None, "safetensors": None, "dummy": Dummy(0, 0)}
    if config.load_format not in known:
        raise ConfigError(f"--load-format {config.load_format}", found=f"known: {', '.join(known)}")
    return known[config.load_format]


def chat_of(config: ServerConfig, folder: Path, text: Text) -> ChatFormat | None:
    """How the checkpoint's conversations become prompts, None where it does not say."""
    try:
        return ChatFormat.load(
            folder, text, config.chat_format, sanitize_user_text=config.sanitize_user_text
        )
    except IsobathError as error:
        if config.chat_format:
            raise
        log.warning("chat is not served: %s", error)
        return None


def sampling_of(config: ServerConfig, folder: Path) -> dict[str, Any]:
    """The checkpoint's own sampling defaults, and over them what the flags say."""
    found: dict[str, Any] = {}
    file = folder / "generation_config.json"
    if config.generation_config == "auto" and file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
    elif config.generation_config not in ("auto", "vllm"):
        raise ConfigError(
            f"--generation-config {config.generation_config}", found="known: auto, vllm"
        )
    found |= config.override_generation_config
    defaults = {name: found[name] for name in SAMPLING if found.get(name) is not None}
    if defaults:
        log.info("sampling defaults: %s", defaults)
    return defaults


def _banner(
    config: ServerConfig, folder: Path, chat: ChatFormat | None
) -> tuple[tuple[int, str], ...]:
    """The first lines: what is served from where, and what was asked for."""
    variant = chat.variant if chat else "none"
    bos = "with" if config.completions_add_bos else "without"
    lines = (
        f"isobath {__version__}, model {names_of(config)[0]}, revision {_revision(folder)}, device "
        f"{{device}}, dtype {config.numerics}, chat format {variant}",
        f"non-default args: {not_default(config)}",
        f"text prompts of /v1/completions begin {bos} a BOS (--completions-add-bos)",
    )
    return tuple((logging.INFO, line) for line in lines)


def _revision(folder: Path) -> str:
    """The hub's commit where the folder tells it, else a hash of what describes the checkpoint."""
    resolved = folder.resolve()
    if resolved.parent.name == "snapshots":
        return resolved.name[:12]
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors.index.json", "tokenizer.json"):
        file = folder / name
        digest.update(file.read_bytes() if file.exists() else b"-")
    return digest.hexdigest()[:12]
