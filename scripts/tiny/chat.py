"""Short chat documents made from the corpus, so that the model has seen the turn markers.

A base model that never met `<｜User｜>` answers a chat request with noise. These documents use the
non-thinking form of the chat encoding: a question made from a section title (or from a function's
name and docstring) and, as the answer, the text that followed it. They teach the shape of a turn
and that it ends with EOS; they do not teach facts or obedience.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

USER, ASSISTANT, NO_THINK = "<｜User｜>", "<｜Assistant｜>", "</think>"

_TITLE = re.compile(r"^([A-Z][^\n]{3,60})\n([=\-~^*\"#+]{4,})\n\n", re.M)
_ASK_PROSE = (
    "What is {0}?",
    "Explain {0}.",
    "Tell me about {0}.",
    "{0}",
    "How does {0} work?",
    "Describe {0}.",
)
_ASK_CODE = (
    "Write a Python function `{0}`. {1}",
    "Implement `{0}` in Python. {1}",
    "{1} Write it as a Python function named {0}.",
)


def _turn(question: str, answer: str) -> str:
    return f"{USER}{question}{ASSISTANT}{NO_THINK}{answer}"


def from_prose(text: str, pick: int) -> Iterator[str]:
    """Yield at most two title and answer pairs of a cleaned rst document; `pick` varies the
    question."""
    heads = list(_TITLE.finditer(text))
    ends = [m.start() for m in heads[1:]] + [len(text)] * bool(heads)
    found = 0
    for n, (head, end) in enumerate(zip(heads, ends, strict=True)):
        answer = text[head.end() : end].strip()
        first = answer.split("\n\n")[0]
        plain = len(first) > 120 and first[0].isupper() and not first.startswith(("..", ">>>"))
        if not plain:
            continue
        if len(answer) > 900:
            answer = answer[: answer.rfind("\n\n", 0, 900)] if "\n\n" in answer[:900] else first
        yield _turn(
            _ASK_PROSE[(pick + n) % len(_ASK_PROSE)].format(head[1].strip()), answer.rstrip(": ")
        )
        found += 1
        if found == 2:
            return


def from_code(text: str, pick: int) -> Iterator[str]:
    """Yield at most two documented functions of a module as question and fenced answer."""
    try:
        nodes = ast.parse(text).body
    except (SyntaxError, ValueError):
        return
    found = 0
    for n, node in enumerate(nodes):
        if not isinstance(node, ast.FunctionDef):
            continue
        doc = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ").strip()
        source = ast.get_source_segment(text, node) or ""
        if not 20 <= len(doc) <= 200 or not 100 <= len(source) <= 1200:
            continue
        question = _ASK_CODE[(pick + n) % len(_ASK_CODE)].format(node.name, doc)
        yield _turn(question, f"```python\n{source}\n```")
        found += 1
        if found == 2:
            return
