"""What the flags of `isobath serve` make of a ServerConfig, and what is said about the others.

Knows the rows of server/flags.py and no command line. Refuses values that cannot mean anything, and
those that would mean something that is not built.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isobath.config import EngineConfig, ServerConfig, variable
from isobath.errors import ConfigError
from isobath.server.flags import CHECKED, FLAGS, Flag

SECRET = ("api_key", "hf_token")
FP8_CACHES = ("auto", "fp8", "fp8_e4m3", "fp8_ds_mla")


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be said about a flag that was accepted."""

    level: int
    text: str


def config_of(given: Mapping[str, Any]) -> tuple[ServerConfig, list[Note]]:
    """The configuration that flags, by Flag.key, ask for, and what to say about the others. None
    and empty lists count as not given. Raises ConfigError."""
    given = {key: value for key, value in given.items() if value not in (None, [], ())}
    _check(given)
    server: dict[str, Any] = {"model": given["model"]} if "model" in given else {}
    engine: dict[str, Any] = {}
    notes = []
    for flag in FLAGS:
        if flag.key not in given or flag in CHECKED:
            continue
        if not flag.field:
            level = logging.WARNING if flag.loud else logging.INFO
            notes.append(Note(level, f"{flag.names[0]} is ignored: {flag.why}"))
            continue
        value = _value(flag, given[flag.key])
        target = engine if flag.field.startswith("engine.") else server
        target[flag.field.removeprefix("engine.")] = value
    if given.get("no_thinking"):
        kwargs = server.get("default_chat_template_kwargs", {})
        server["default_chat_template_kwargs"] = {"thinking": False} | kwargs
    if key := variable("ISOBATH_API_KEY", ""):
        server.setdefault("api_key", (key,))
    engine.setdefault("max_batched_tokens", max(512, engine.get("max_num_seqs", 0)))
    return ServerConfig(**server, engine=EngineConfig(**engine)), notes


def tokens(text: str) -> int | str:
    """ "8192", "128k" (131,072), "1M" (1,048,576), "2.5k"; "auto" and "-1" are "auto"."""
    if text in ("auto", "-1"):
        return "auto"
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip().replace(",", ""))
    if not match:
        raise ConfigError(
            f"--max-model-len {text}", found="no number of tokens", do="write 8192, 128k, 1M, auto"
        )
    return int(float(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2].lower()])


def not_default(config: ServerConfig) -> dict[str, Any]:
    """The fields that differ from their defaults, secrets blacked out, for the log."""
    plain, found = ServerConfig(), {}
    for name in ServerConfig.__dataclass_fields__:
        value = getattr(config, name)
        if name == "engine":
            for part in EngineConfig.__dataclass_fields__:
                if getattr(value, part) != getattr(plain.engine, part):
                    found[part] = getattr(value, part)
        elif value != getattr(plain, name):
            found[name] = "***" if name in SECRET else value
    return found


def _value(flag: Flag, value: Any) -> Any:
    if flag.key == "max_model_len":
        return tokens(value)
    if flag.key == "structured_outputs_config":
        texts = [t if t.startswith("{") else json.dumps({"backend": t}) for t in value]
        return merged(flag, texts).get("backend", "auto")
    if flag.kind is dict:
        return merged(flag, value)
    if flag.kind is not list:
        return value
    parts = [part for text in value for part in _parts(text)]
    if flag.key != "device_ids":
        return tuple(parts)
    try:
        return tuple(int(part) for part in parts)
    except ValueError as error:
        raise ConfigError("--device-ids", found=str(error), do="write them as 0,1") from None


def _parts(text: str) -> list[str]:
    """One value of a list flag: itself, a JSON list, or several with commas."""
    if text.startswith("["):
        return [str(item) for item in _json("a list", text)]
    return [part.strip() for part in text.split(",") if part.strip()]


def merged(flag: Flag, texts: Iterable[str]) -> dict[str, Any]:
    """JSON objects laid over each other, inner ones too."""
    whole: dict[str, Any] = {}
    for text in texts:
        part = _json(flag.names[0], text)
        if not isinstance(part, dict):
            raise ConfigError(f"{flag.names[0]} {text}", found="JSON, but not an object")
        _lay(whole, part)
    return whole


def _lay(under: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _lay(under[key], value)
        else:
            under[key] = value


def _json(what: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{what} {text}", found=f"not JSON: {error}") from None


def _check(given: Mapping[str, Any]) -> None:
    """Refuse what would have to mean something that is not built."""
    for key in ("tensor_parallel_size", "pipeline_parallel_size"):
        if given.get(key, 1) != 1:
            count = given[key]
            raise ConfigError(
                f"--{key.replace('_', '-')} {count}",
                found="isobath runs an engine on one GPU; splitting a model is not built",
                effect=f"{count - 1} GPUs would stay idle",
                do=f"--data-parallel-size {count}: an engine on each GPU, if the model fits one "
                "(isobath plan says)",
            )
    choices = {"dtype": ("auto", "bfloat16"), "kv_cache_dtype": FP8_CACHES}
    for key, known in choices.items():
        if given.get(key, "auto") not in known:
            raise ConfigError(
                f"--{key.replace('_', '-')} {given[key]}",
                found="known: " + ", ".join(known),
                do="leave it out; --numerics exact computes and caches in float32",
            )
