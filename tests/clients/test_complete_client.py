"""`isobath complete` against the real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from isobath.client.complete import complete, repeat
from isobath.client.connection import Connection
from tests.clients.test_chat_client import Screen
from tests.support.http_server import Served


@pytest.fixture
def connection(server: Served) -> Iterator[Connection]:
    connection = Connection(server.url)
    yield connection
    connection.close()


def test_a_text_is_gone_on_with(connection: Connection) -> None:
    screen = Screen()
    more = {"max_tokens": 12, "ignore_eos": True, "temperature": 0}
    answer = complete(connection, screen, "The json module", more)
    assert answer.tokens == 12 and answer.finish_reason == "length"
    assert answer.content.strip() and screen.text == answer.content + "\n"


def test_prompts_are_read_until_the_end(connection: Connection) -> None:
    lines = iter(["The", "", KeyboardInterrupt, EOFError])

    def read(_: str) -> str:
        line = next(lines)
        if isinstance(line, str):
            return line
        raise line

    screen = Screen()
    repeat(connection, screen, {"max_tokens": 1}, read)
    assert screen.text.count("Ctrl-D leaves") == 2


def test_a_refusal_is_told_and_is_the_exit_code(server: Served) -> None:
    command = [sys.executable, "-m", "isobath", "complete", "--url", server.url, "-q", "Hi"]
    done = subprocess.run([*command, "--max-tokens", "3"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip()
    done = subprocess.run([*command, "--model-name", "nobody"], capture_output=True, text=True)
    assert done.returncode == 1 and "404" in done.stdout
