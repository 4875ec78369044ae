"""Reasoning that travels through a client as one opaque word, and comes back.

Two dialects let a client hold a model's reasoning without reading it: the `signature` of a thinking
block, and the `encrypted_content` of a reasoning item. Clients must send such a word back unchanged
and never look into it. Ours carries the text itself (base64), so a server that remembers nothing
can render the turn as it was. It hides nothing and proves nothing: whoever sends a word of their
own making only changes their own prompt. Words made by another server are not ours to read.
"""

from __future__ import annotations

import base64
import hashlib

_CARRIES, _NAMES = "isobath.text.", "isobath.seen."


def seal(text: str) -> str:
    """A word that carries `text`."""
    return _CARRIES + base64.urlsafe_b64encode(text.encode()).decode()


def unseal(word: str | None) -> str | None:
    """The text that `word` carries; None when seal() did not make it."""
    if word is None or not word.startswith(_CARRIES):
        return None
    try:
        return base64.urlsafe_b64decode(word.removeprefix(_CARRIES)).decode()
    except ValueError:  # cut or altered on its way: not base64, or not UTF-8 inside
        return None


def signature(text: str) -> str:
    """A word for text that the client holds in plain sight: a digest, since it need not carry."""
    return _NAMES + hashlib.sha256(text.encode()).hexdigest()[:32]
