"""`isobath chat`: a conversation in the terminal, with any server that speaks OpenAI's protocol.

    /think, /nothink, /think-max   how much the model reasons from now on
    /read FILE                     send a file's text
    /quit                          leave (also Ctrl-D)

Ctrl-C ends the answer that is coming and nothing else: what has come of it stays in the
conversation. Answers go to stdout; prompts, reasoning and statistics are told apart by style.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from isobath.client.connection import Answer, Connection, Message, ServerRefused

MODES: Mapping[str, dict[str, Any]] = {
    "/think": {"thinking": True},
    "/nothink": {"thinking": False},
    "/think-max": {"thinking": True, "reasoning_effort": "max"},
}
HELP = "/think  /nothink  /think-max  /read FILE  /quit; Ctrl-C stops an answer"


class Conversation:
    """Messages so far, and how the next are asked for. stats: a line after each answer."""

    def __init__(
        self,
        connection: Connection,
        console: Console,
        *,
        system_prompt: str | None = None,
        stats: bool = False,
    ) -> None:
        self.connection, self.console, self.stats = connection, console, stats
        self.messages: list[Message] = []
        if system_prompt:
            self.messages.append({"role": "system", "content": system_prompt})
        self.kwargs: dict[str, Any] = {}

    def take(self, line: str) -> bool:
        """Do what a line says; False when it says to leave."""
        line = line.strip()
        command, _, rest = line.partition(" ")
        if command in ("/quit", "/exit"):
            return False
        if command in MODES:
            self.kwargs = dict(MODES[command])
            self._note(f"{command[1:]} from now on")
        elif command == "/read":
            self._read(rest.strip())
        elif command in ("/help", "/?") or (command.startswith("/") and not rest):
            self._note(HELP)
        elif line:
            self.say(line)
        return True

    def say(self, text: str) -> Answer:
        """Send a message and show the answer as it comes."""
        self.messages.append({"role": "user", "content": text})
        answer = Answer()
        more = {"chat_template_kwargs": self.kwargs} if self.kwargs else {}
        stream = self.connection.stream(self.messages, more, answer)
        try:
            self._show(stream)
        except KeyboardInterrupt:
            stream.close()  # type: ignore[attr-defined]
            self._note("\nstopped")
        except ServerRefused as error:
            self.console.print(Text(f"\n{error}", style="red"))
        if answer.content or answer.reasoning:
            self.messages.append({"role": "assistant", "content": answer.content})
        else:
            self.messages.pop()  # as if it had not been said: nothing answers it
        if self.stats:
            self._note(answer.statistics())
        return answer

    def _show(self, stream: Any) -> None:
        before = ""
        for kind, text in stream:
            if before and kind != before:
                self.console.print("\n")
            style = "dim italic" if kind == "reasoning" else ""
            self.console.print(Text(text, style=style), end="", soft_wrap=True)
            before = kind
        self.console.print()

    def _read(self, name: str) -> None:
        try:
            text = Path(name).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.console.print(Text(str(error), style="red"))
            return
        self._note(f"{name}: {len(text):,} characters")
        self.say(text)

    def _note(self, text: str) -> None:
        self.console.print(Text(text, style="dim"))


def talk(conversation: Conversation, read: Callable[[str], str] = input) -> None:
    """Read lines until the user leaves. read: shows its argument and returns a line."""
    conversation.console.print(
        Text(f"{conversation.connection.model} at your service. {HELP}", style="dim")
    )
    while True:
        try:
            if not conversation.take(read("> ")):
                return
        except EOFError:
            return
        except KeyboardInterrupt:
            conversation.console.print(Text("\n/quit leaves", style="dim"))
