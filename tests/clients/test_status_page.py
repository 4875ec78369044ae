"""The status page: whole in one answer, true without a script, and alive in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from isobath.config import ServerConfig
from isobath.engine.statistics import BoundOp
from isobath.server.state import ServerState
from isobath.server.status import History, status_of
from isobath.server.status_html import curve, page, verdict
from tests.support.http_server import Served, until

BODY = {"prompt": "The json module", "max_tokens": 400, "ignore_eos": True}


class Reader(HTMLParser):
    """Texts of elements with an id, and everything that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.fetched: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag in ("img", "script", "link", "iframe"):
            self.fetched += [v for k, v in attributes if k in ("src", "href") and v]
        if tag not in ("meta", "link", "path", "img", "br"):
            self._open.append(found.get("id") or "")

    def handle_endtag(self, tag: str) -> None:
        if self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1]:
            name = self._open[-1]
            self.texts[name] = self.texts.get(name, "") + data


def number(text: str) -> float:
    return float(re.sub(r"[^\d.]", "", text))


def test_the_page_is_whole_and_says_what_json_says(http: httpx.Client) -> None:
    answer = http.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    reader, status = Reader(answer.text), http.get("/status.json").json()
    assert all(url.startswith("data:") for url in reader.fetched), "it fetches nothing"
    assert "@import" not in answer.text and "url(" not in answer.text
    assert reader.texts["phase"] == status["phase"] == "ready"
    assert number(reader.texts["gtok"]) <= status["generation_tokens"]
    assert json.loads(reader.texts["now"])["model"] == status["model"]
    for op in http.get("/plan").json()["ops"]:
        assert f"<td>{op['op']}</td>" in answer.text


def test_numbers_move_under_load_and_come_to_rest(http: httpx.Client) -> None:
    before = http.get("/status.json").json()
    with http.stream("POST", "/v1/completions", json=BODY | {"stream": True}) as answer:
        lines = answer.iter_lines()
        for _ in range(8):
            next(lines)
        limit = time.monotonic() + 10
        while not (busy := http.get("/status.json").json())["running"]:
            assert time.monotonic() < limit
        assert busy["kv_cache_usage"] > 0
    until(lambda: not http.get("/status.json").json()["running"], 10)
    after = http.get("/status.json").json()
    assert after["generation_tokens"] > before["generation_tokens"]
    assert after["kv_cache_usage"] == 0


def test_a_server_that_loads_has_a_page() -> None:
    state = ServerState(ServerConfig(), phase="loading")
    text = page(status_of(state, History(), time.monotonic()), None)
    assert Reader(text).texts["phase"] == "loading" and "being loaded" in text


def test_what_is_shown_cannot_break_out_of_the_page() -> None:
    config = ServerConfig(served_model_name=("</script><b>x",))
    text = page(status_of(ServerState(config), History(), time.monotonic()), None)
    assert "<b>x" not in text and text.count("</script>") == 2


def test_verdicts_are_told_apart() -> None:
    reasons = {
        "fastest of 2 that pass: 3.1 us": "ok",
        "first of its order, agrees on small cases at start; no verdicts of the doctor": "un",
        "failed verdicts were allowed: wrong on case one": "bad",
        "the CPU's backend": "no",
    }
    for reason, mark in reasons.items():
        assert verdict(BoundOp("embed", "torch", reason))[0] == mark


def test_the_line_stays_in_its_picture() -> None:
    points = re.findall(r"[\d.]+ ([\d.-]+)", curve([0.0, 5.0, 2500.0]))
    assert len(points) == 3 and all(0 <= float(y) <= 120 for y in points)
    assert curve([]) == ""


@contextmanager
def load(url: str) -> Iterator[None]:
    """Completions, four at a time, until the block ends."""
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=120) as client:
            while not done.is_set():
                client.post("/v1/completions", json=BODY | {"max_tokens": 50})

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    yield
    done.set()
    for thread in threads:
        thread.join()


def browse(url: str, *flags: str) -> str:
    """What headless Chromium makes of a page after some of its own seconds; make setup-browser
    installs it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "no chromium: make setup-browser"
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    command = [found, *quiet, "--window-size=1120,900", "--virtual-time-budget=40000", *flags, url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.nightly
def test_a_browser_shows_numbers_that_move_under_load(server: Served, tmp_path: Path) -> None:
    """Keeps its pictures in tmp_path, light and dark."""
    still, moving = tmp_path / "still.png", tmp_path / "moving.png"
    browse(server.url, f"--screenshot={still}")
    httpx.post(f"{server.url}/v1/completions", json=BODY, timeout=120)  # the first is slow
    with load(server.url):
        shown = Reader(browse(server.url, "--dump-dom"))
        browse(server.url, f"--screenshot={moving}")
        dark = ("--blink-settings=preferredColorScheme=0", f"--screenshot={tmp_path / 'dark.png'}")
        browse(server.url, *dark)
    at_first = json.loads(shown.texts["now"])
    assert number(shown.texts["gtok"]) > at_first["generation_tokens"], "its script asked again"
    assert number(shown.texts["running"]) > 0 and shown.texts["phase"] == "ready"
    pictures = [file.read_bytes() for file in (still, moving, tmp_path / "dark.png")]
    assert all(p.startswith(b"\x89PNG") and len(p) > 10_000 for p in pictures)
    assert len(set(pictures)) == 3
