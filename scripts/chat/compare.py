"""Our prompts against those of a checkpoint's own encoder: `python scripts/chat/compare.py FOLDER`.

It RUNS the checkpoint's encoding/encoding_dsv4.py, which isobath never does: only for a checkpoint
whose code you trust. Random conversations, and those of encoding/tests/test_input_*.json if there
are any, are rendered by both in every mode; golden outputs must be among ours. Prints the first
prompts that differ; exit 1 if any does.

Not compared, because we depart there on purpose (isobath/chat/render.py): an assistant's turn after
another or at the very end, and for April's file also one after a system message.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from isobath.chat import conversation_of
from isobath.chat.render import render
from isobath.chat.texts import FILE, Texts, read_texts

LEVELS = {"v4": (None, "high", "max"), "v4-0731": ("low", "high", "max")}
ARGUMENTS = ({}, {"a": 'x<>"', "n": 3}, {"l": [1, {"z": None}], "b": True, "s": "ü\n"})
TOOLS = [
    {"type": "function", "function": {"name": "f", "description": "é", "parameters": {"a": {}}}},
    {"type": "function", "function": {"name": "g"}},
]
Messages = list[dict[str, Any]]


def conversation(rng: random.Random) -> tuple[Messages, list[Any] | None]:
    """Random messages, and tools or none."""
    messages: Messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": rng.choice(["", "Be brief."])})
    for turn in range(rng.randint(1, 5)):
        messages.append({"role": "user", "content": rng.choice(["hi", "é\n\n", "q <b>"])})
        for role, chance in (("user", 0.2), ("system", 0.1), ("latest_reminder", 0.1)):
            if rng.random() < chance:
                messages.append({"role": role, "content": f"more {role}"})
        calls = rng.randint(0, 3)
        while turn < 4 and rng.random() < 0.9:
            messages += _answer(rng, calls, f"{turn}.{len(messages)}")
            if not calls:
                break
            calls = rng.randint(0, 2)
    return messages, TOOLS[: rng.randint(1, 2)] if rng.random() < 0.5 else None


def _answer(rng: random.Random, calls: int, mark: str) -> Messages:
    """An assistant's turn and the results of its calls, out of order."""
    thought = rng.choice(["", "because", "so\n"])
    said: dict[str, Any] = {"role": "assistant", "content": rng.choice(["", "yes", "x\n"])}
    said |= {"reasoning": thought, "reasoning_content": thought}
    ids = [f"{mark}.{k}" for k in range(calls)]
    if ids:
        functions = [{"name": "f", "arguments": json.dumps(rng.choice(ARGUMENTS))} for _ in ids]
        pairs = zip(ids, functions, strict=True)
        said["tool_calls"] = [{"id": i, "type": "function", "function": f} for i, f in pairs]
    rng.shuffle(ids)
    return [said, *({"role": "tool", "tool_call_id": i, "content": f"<{i}>"} for i in ids)]


def departs(messages: Messages, variant: str) -> bool:
    """Whether our prompt differs on purpose."""
    roles = [message["role"] for message in messages]
    pairs = list(zip(roles, [*roles[1:], "assistant"], strict=True))
    before = ("assistant", "system") if variant == "v4" else ("assistant",)
    inner = any(role in before and following == "assistant" for role, following in pairs)
    return inner or "developer" in roles or any("response_format" in m for m in messages)


def modes(variant: str) -> Iterator[dict[str, Any]]:
    """Arguments of the reference encoder."""
    for thinking in ("chat", "thinking"):
        for drop in (True, False):
            for level in LEVELS[variant]:
                yield {"thinking_mode": thinking, "drop_thinking": drop, "reasoning_effort": level}


def ours(messages: Messages, tools: list[Any] | None, texts: Texts, mode: dict[str, Any]) -> str:
    """Our prompt in a mode of theirs."""
    thinking = mode["thinking_mode"] == "thinking"
    kwargs = {"thinking": thinking, "drop_thinking": mode["drop_thinking"]}
    effort = mode["reasoning_effort"]
    said = conversation_of(messages, tools, chat_template_kwargs=kwargs, reasoning_effort=effort)
    return "".join(segment.text for segment in render(said, texts))


def theirs(
    messages: Messages, tools: list[Any] | None, encode: Callable[..., str], mode: dict[str, Any]
) -> str:
    """The reference's prompt; tools stand in the first system message."""
    messages = [dict(message) for message in messages]
    if tools:
        if all(message["role"] != "system" for message in messages):
            messages.insert(0, {"role": "system", "content": ""})
        next(message for message in messages if message["role"] == "system")["tools"] = tools
    return encode(messages, **mode)


def golden(folder: Path) -> Iterator[tuple[Messages, list[Any] | None, str]]:
    """(messages, tools, prompt) of the checkpoint's own tests."""
    for file in sorted((folder / "encoding" / "tests").glob("test_input_*.json")):
        case = json.loads(file.read_text(encoding="utf-8"))
        messages = case["messages"] if isinstance(case, dict) else case
        tools = case.get("tools") if isinstance(case, dict) else None
        tools = tools or next((m.pop("tools") for m in messages if m.get("tools")), None)
        output = file.with_name(file.name.replace("input", "output")).with_suffix(".txt")
        yield messages, tools, output.read_text(encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="a checkpoint's; its encoder is run")
    parser.add_argument("--variant", choices=tuple(LEVELS), help="as --chat-format")
    parser.add_argument("--conversations", type=int, default=500)
    asked = parser.parse_args()
    texts = read_texts(asked.folder, asked.variant)
    spec = spec_from_file_location("reference", asked.folder / FILE)
    assert spec and spec.loader
    reference = module_from_spec(spec)
    spec.loader.exec_module(reference)
    rng = random.Random(0)
    cases = [conversation(rng) for _ in range(asked.conversations)]
    cases += [(messages, tools) for messages, tools, _ in golden(asked.folder)]
    compared = [case for case in cases if not departs(case[0], texts.variant)]
    same, wrong = 0, 0
    for messages, tools in compared:
        for mode in modes(texts.variant):
            one = ours(messages, tools, texts, mode)
            other = theirs(messages, tools, reference.encode_messages, mode)
            same += one == other
            if one != other and (wrong := wrong + 1) <= 3:
                print(f"{mode}\n  ours   {one!r}\n  theirs {other!r}")
    for messages, tools, expected in golden(asked.folder):
        known = {ours(messages, tools, texts, mode) for mode in modes(texts.variant)}
        if not departs(messages, texts.variant) and expected not in known:
            wrong += 1
            print(f"not among ours: {expected[:300]!r}")
    print(f"{texts.variant}: {same} prompts equal, {wrong} not; {len(compared)} conversations")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
