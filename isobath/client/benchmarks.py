"""Other people's load generators: the command by which each puts the same load on one server.

isobath has none of its own: users compare numbers, and numbers of one client compare. A load is
random prompts of one length and answers of one length, end-of-sentence ignored, streamed from
/v1/completions. The commands are those of vllm 0.33, guidellm 0.8 and aiperf 0.13. Nothing here
measures, or installs a client.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isobath.client.connection import Connection
from isobath.errors import ConfigError

BUNDLED = {"isobath-tiny": Path(__file__).parents[1] / "models" / "isobath_tiny"}
"""The model that is no folder of the user's and on no hub."""
KEY = "$ISOBATH_API_KEY"
"""Stands for the key in a command that is shown."""


@dataclass(frozen=True, slots=True)
class Load:
    """input_len, output_len: tokens. concurrency: requests under way at once."""

    input_len: int = 512
    output_len: int = 512
    num_prompts: int = 10240
    concurrency: int = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """url: without /v1. model: as the server calls it. tokenizer: a folder, or a name on the hub.
    key: for the server, "" if it wants none."""

    url: str
    model: str
    tokenizer: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """A load generator. command: what to run, word by word."""

    name: str
    install: str
    command: Callable[[Target, Load], list[str]]


def _vllm(target: Target, load: Load) -> list[str]:
    return [
        *(["env", f"OPENAI_API_KEY={target.key}"] if target.key else []),
        *("vllm", "bench", "serve", "--base-url", target.url, "--endpoint", "/v1/completions"),
        *("--model", target.model, "--tokenizer", target.tokenizer),
        *("--dataset-name", "random", "--random-input-len", str(load.input_len)),
        *("--random-output-len", str(load.output_len), "--num-prompts", str(load.num_prompts)),
        *("--max-concurrency", str(load.concurrency), "--ignore-eos"),
    ]


def _guidellm(target: Target, load: Load) -> list[str]:
    """It ignores end-of-sentence whenever it knows how many tokens shall come."""
    backend = f"kind=openai_http,target={target.url},model={target.model}"
    backend += f",request_format=/v1/completions{f',api_key={target.key}' if target.key else ''}"
    lengths = f"prompt_tokens={load.input_len},output_tokens={load.output_len}"
    return [
        *("guidellm", "run", "--backend", backend),
        *("--tokenizer", f"kind=huggingface_auto,model={target.tokenizer}"),
        *("--data", f"kind=synthetic_text,{lengths}"),
        *("--profile", f"kind=concurrent,streams={load.concurrency}"),
        *("--constraint", f"kind=max_requests,count={load.num_prompts}"),
    ]


def _aiperf(target: Target, load: Load) -> list[str]:
    return [
        *("aiperf", "profile", "--model", target.model, "--url", target.url),
        *("--endpoint-type", "completions", "--streaming", "--tokenizer", target.tokenizer),
        *("--isl", str(load.input_len), "--osl", str(load.output_len)),
        *("--request-count", str(load.num_prompts), "--concurrency", str(load.concurrency)),
        *("--extra-inputs", "ignore_eos:true", "--use-server-token-count"),
        *(["--api-key", target.key] if target.key else []),
    ]


CLIENTS = (
    Client("vllm", "pip install vllm", _vllm),
    Client("guidellm", "pip install guidellm==0.8.1 torch transformers", _guidellm),
    Client("aiperf", "pip install aiperf==0.13.0", _aiperf),
)


def target_of(url: str, *, model: str | None, tokenizer: str | None, api_key: str | None) -> Target:
    """The server at `url`, asked what it serves: by default the first model that it lists, with
    the tokenizer of the checkpoint that it says that is. Raises ServerRefused or ConfigError."""
    connection = Connection(url, api_key=api_key)
    try:
        cards = {str(card["id"]): card for card in connection.models()}
    finally:
        connection.close()
    name = model or next(iter(cards))
    if name not in cards:
        raise ConfigError(f"model {name!r}", found=f"{url} serves " + ", ".join(cards))
    root = str(cards[name].get("root") or name)
    folder = tokenizer or str(BUNDLED.get(root, root))
    return Target(url.rstrip("/").removesuffix("/v1"), name, folder, api_key or "")


def installed() -> list[Client]:
    """The clients on the PATH."""
    return [client for client in CLIENTS if shutil.which(client.name)]


def chosen(name: str | None) -> list[Client]:
    """The client of that name; without one those installed, or all if none is. Raises
    ConfigError."""
    if name is None:
        return installed() or list(CLIENTS)
    known = {client.name: client for client in CLIENTS}
    if name not in known:
        raise ConfigError(f"--client {name}", found="known: " + ", ".join(known))
    return [known[name]]


def lines(clients: Sequence[Client], target: Target, load: Load) -> list[str]:
    """For a shell: a comment and a command for each client. The key is left to the shell, as a
    variable."""
    public = replace(target, key=KEY) if target.key else target
    found, told = installed(), []
    for client in clients:
        there = "found here" if client in found else f"not on the PATH: {client.install}"
        words = client.command(public, load)
        command = " ".join(f'"{word}"' if KEY in word else shlex.quote(word) for word in words)
        told += [f"# {client.name}, {there}", command]
    return told


def run(client: Client, target: Target, load: Load) -> None:
    """Become the client. Raises ConfigError when it is not there, or does not start."""
    if client not in installed():
        raise ConfigError(f"run {client.name}", found="it is not on the PATH", do=client.install)
    words = client.command(target, load)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise ConfigError(f"run {client.name}", found=str(error), do=client.install) from error
