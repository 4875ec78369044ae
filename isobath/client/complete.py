"""`isobath complete`: texts gone on with in the terminal, by any server with /v1/completions.

Each line that is read is a prompt of its own. Ctrl-C ends the completion that is coming and nothing
else; Ctrl-D leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from isobath.client.connection import Answer, Connection, ServerRefused


def complete(
    connection: Connection, console: Console, prompt: str, more: Mapping[str, Any]
) -> Answer:
    """Show how the server goes on with `prompt`. more: other fields of the request."""
    answer = Answer()
    stream = connection.complete(prompt, more, answer)
    try:
        for _, text in stream:
            console.print(Text(text), end="", soft_wrap=True)
        console.print()
    except KeyboardInterrupt:
        stream.close()  # type: ignore[attr-defined]
        console.print(Text("\nstopped", style="dim"))
    except ServerRefused as error:
        console.print(Text(f"\n{error}", style="red"))
    return answer


def repeat(
    connection: Connection,
    console: Console,
    more: Mapping[str, Any],
    read: Callable[[str], str] = input,
) -> None:
    """Read prompts until the user leaves. read: shows its argument and returns a line."""
    console.print(Text(f"{connection.model} goes on with what you write; Ctrl-D leaves", "dim"))
    while True:
        try:
            if prompt := read("> "):
                complete(connection, console, prompt, more)
        except EOFError:
            return
        except KeyboardInterrupt:
            console.print(Text("\nCtrl-D leaves", style="dim"))
