"""`isobath serve` as typer sees it, made from the rows of server/flags.py.

Beyond what typer does, a command line may spell names with underscores, give several values after
one list flag (`--served-model-name a b`) and set a key of a JSON flag by dots
(`--default-chat-template-kwargs.thinking true`), as vLLM's may. Imports nothing heavy: `isobath
--help` and completion load this file.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from isobath.config import ServerConfig
from isobath.server.flag_values import Note, config_of
from isobath.server.flags import FLAGS, IGNORED, Flag

SPREAD = {name: flag for flag in FLAGS if flag.kind is list for name in flag.names}
NESTED = {name: flag for flag in FLAGS if flag.kind is dict for name in flag.names}


class ServeCommand(TyperCommand):
    """A command that takes vLLM's spellings."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(plain(args)))


def plain(args: list[str]) -> Iterator[str]:
    """The same command line in the spelling that typer knows."""
    rest = list(args)
    while rest:
        word = rest.pop(0)
        name, has_value, value = word.partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        base, dotted, path = word.partition("=")[0].partition(".")
        base = base.replace("_", "-")
        if dotted and base in NESTED:
            text = value if has_value else (rest.pop(0) if rest else "")
            yield from (base, json.dumps(_nested(path, text)))
        elif name in SPREAD and not has_value:
            values = []
            while rest and not rest[0].startswith("-"):
                values.append(rest.pop(0))
            yield from ([name] if not values else [p for v in values for p in (name, v)])
        else:
            yield word


def _nested(path: str, text: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        value = text
    for key in reversed(path.split(".")):
        value = {key: value}
    nested: dict[str, Any] = value
    return nested


def _parameter(flag: Flag) -> inspect.Parameter:
    names = list(flag.names)
    if flag.off:
        names[0] += f"/{flag.off}"
    kinds: dict[type, Any] = {list: list[str], dict: list[str]}
    option = typer.Option(
        *names,
        help=flag.help,
        rich_help_panel=flag.panel or None,
        hidden=flag in IGNORED,
        show_default=False,
    )
    kind: Any = Optional[kinds.get(flag.kind, flag.kind)]  # noqa: UP045
    return inspect.Parameter(
        flag.key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def register(app: typer.Typer, start: Callable[[ServerConfig, list[Note]], int]) -> None:
    """Add the command to the command line. start: serves, logs what is
    to be said about flags, and returns the exit code."""

    def serve(**given: Any) -> None:
        """Serve a model over HTTP, to clients that talk to OpenAI, Anthropic or vLLM.

        Other flags of vLLM recipes are accepted, and a line says why they do nothing.
        """
        model, option = given.pop("model_folder"), given.pop("model")
        if model and option and model != option:
            raise typer.BadParameter(f"two models: {model} and {option}")
        config, notes = config_of(given | {"model": model or option})
        raise SystemExit(start(config, notes))

    signature = _signature()
    serve.__signature__ = signature  # type: ignore[attr-defined]
    serve.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    dashes = {"token_normalize_func": lambda name: name.replace("_", "-")}
    app.command("serve", cls=ServeCommand, context_settings=dashes)(serve)


def parsed(words: list[str]) -> ServerConfig:
    """What `isobath serve` with these words on its command line would be asked for."""
    found: list[ServerConfig] = []

    def keep(config: ServerConfig, notes: list[Note]) -> int:
        found.append(config)
        return 0

    app = typer.Typer(add_completion=False)
    register(app, keep)
    with suppress(SystemExit):
        app(words, standalone_mode=False)
    return found[0]


def _signature() -> inspect.Signature:
    where = inspect.Parameter.KEYWORD_ONLY
    argument = typer.Argument(
        metavar="[MODEL]",
        help="Folder of a checkpoint, or its name on the hub.",
        show_default="the bundled model",
    )
    model = inspect.Parameter(
        "model_folder",
        where,
        default=None,
        annotation=Annotated[Optional[str], argument],  # noqa: UP045
    )
    same = _parameter(Flag(("--model",), help="The same.", panel="Model"))
    return inspect.Signature([model, same, *map(_parameter, FLAGS)])
