"""The name of the request that is being answered: in its answer's id, its headers and the log.

A client's x-request-id is taken if it is harmless in all of these places.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="")
"""Of the request whose task this is; empty outside of any."""
_HARMLESS = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)


def harmless(name: str | None) -> str:
    """`name` if it can be shown anywhere, else nothing."""
    return name if name and _HARMLESS.fullmatch(name) else ""


def fresh() -> str:
    """A name that nobody has."""
    return secrets.token_hex(16)
