"""`isobath chat`, `complete`, `run-batch` and `collect-env` as typer sees them. Imports nothing
heavy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from isobath.config import ServerConfig, variable

Url = Annotated[str, typer.Option(help="Server, with or without /v1.")]
Key = Annotated[str | None, typer.Option(help="Key for it.", show_default="ISOBATH_API_KEY")]
Name = Annotated[
    str | None, typer.Option(help="Model's name.", show_default="the first that it lists")
]


def chat(
    url: Url = "http://localhost:8000/v1",
    model_name: Name = None,
    api_key: Key = None,
    system_prompt: Annotated[str | None, typer.Option(help="Said before everything.")] = None,
    quick: Annotated[
        str | None, typer.Option("--quick", "-q", help="Send this, show the answer, leave.")
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Speed after each answer.")] = False,
) -> None:
    """Talk to a server; /think, /nothink, /think-max, /read FILE, /quit; Ctrl-C stops an answer."""
    from rich.console import Console

    from isobath.client.chat import Conversation, talk
    from isobath.client.connection import Connection

    if sys.stdin.isatty():
        import readline  # noqa: F401  # gives input() a history and an editor
    key = api_key or variable("ISOBATH_API_KEY", "") or None
    connection = Connection(url, model=model_name, api_key=key)
    conversation = Conversation(
        connection, Console(highlight=False), system_prompt=system_prompt, stats=stats
    )
    try:
        if quick is None:
            talk(conversation)
        elif not conversation.say(quick).finish_reason:
            raise SystemExit(1)
    finally:
        connection.close()


def complete(
    url: Url = "http://localhost:8000/v1",
    model_name: Name = None,
    api_key: Key = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="At most so many.", show_default="the server's 16")
    ] = None,
    quick: Annotated[
        str | None, typer.Option("--quick", "-q", help="Go on with this, and leave.")
    ] = None,
) -> None:
    """Let a server go on with a text; Ctrl-C stops a completion."""
    from rich.console import Console

    from isobath.client.complete import complete, repeat
    from isobath.client.connection import Connection

    if sys.stdin.isatty():
        import readline  # noqa: F401  # gives input() a history and an editor
    key = api_key or variable("ISOBATH_API_KEY", "") or None
    connection, console = Connection(url, model=model_name, api_key=key), Console(highlight=False)
    more = {} if max_tokens is None else {"max_tokens": max_tokens}
    try:
        if quick is None:
            repeat(connection, console, more)
        elif not complete(connection, console, quick, more).finish_reason:
            raise SystemExit(1)
    finally:
        connection.close()


def run_batch(
    source: Annotated[Path, typer.Option("--input-file", "-i", help="JSONL; - is stdin.")],
    target: Annotated[Path, typer.Option("--output-file", "-o", help="JSONL; it is replaced.")],
    model: Annotated[
        str | None, typer.Option(help="Checkpoint to load.", show_default="the bundled model")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Use this server; load nothing.")] = None,
    api_key: Key = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 256,
) -> None:
    """Answer a file of requests in OpenAI's batch format; exit code 1 if one failed."""
    from isobath.client import batch

    text = sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8")
    key = api_key or variable("ISOBATH_API_KEY", "") or None
    job = batch.Job(batch.requests_of(text), target, concurrency)
    outcome = batch.main(job, ServerConfig(model=model), url=url, api_key=key)
    print(f"{outcome.good} answered, {outcome.bad} failed", file=sys.stderr)
    raise SystemExit(1 if outcome.bad else 0)


def collect_env() -> None:
    """Print what a bug report needs to know about this machine."""
    from isobath.client import environment

    for line in environment.lines():
        print(line)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("chat")(chat)
    app.command("complete")(complete)
    app.command("run-batch")(run_batch)
    app.command("collect-env")(collect_env)
