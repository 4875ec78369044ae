"""Grammars: structures compiled in the background, once each, by whichever library can.

Owns a thread, started by the first structure, that imports the libraries (seconds, so never on the
engine's own thread) and compiles one structure after the other; the cache of what it compiled; and
the choice of the backend. A request waits for its Ticket in the engine's holding place while others
go on. A compilation that takes too long is given up, and its thread left to itself: neither
library can be interrupted, and both let go of the GIL.

"auto" is xgrammar where it is installed and enforces all that the structure says, else llguidance.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from queue import SimpleQueue
from typing import Protocol

from isobath.engine.constraint import Grammar
from isobath.engine.grammar_vocabulary import Vocabulary
from isobath.engine.structure import Structure
from isobath.errors import IsobathError, RequestError

_log = logging.getLogger(__name__)
BACKENDS = {
    "xgrammar": ("isobath.engine.grammar_xgrammar", "XGrammar"),
    "guidance": ("isobath.engine.grammar_guidance", "Guidance"),
}
LIMIT_SECONDS = 30.0
"""Of compiling one structure. Ordinary ones take milliseconds."""
ABANDONED = 4
"""Compilations given up and still running, beyond which no more are begun."""
CACHE_BYTES = 256 << 20


class Backend(Protocol):
    """A grammar library with a vocabulary."""

    name: str

    def compile(self, structure: Structure) -> Grammar:
        """Raises RequestError for a structure that it refuses or would not enforce in full."""


class Ticket:
    """A structure's compilation. When done there is either a grammar or an error."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.grammar: Grammar | None = None
        self.error: RequestError | None = None
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def wait(self) -> None:
        self._done.wait()

    def settle(self, grammar: Grammar | None, error: RequestError | None) -> None:
        """Once; what comes later (from a compilation that was given up) is dropped."""
        if not self.done:
            self.grammar, self.error = grammar, error
            self._done.set()


class Grammars:
    """Compiles and keeps. vocabulary: made on the thread, when it is first needed. choice: "auto"
    or one of BACKENDS. wake: called on the thread whenever a ticket is done."""

    def __init__(
        self,
        vocabulary: Callable[[], Vocabulary],
        choice: str = "auto",
        *,
        limit: float = LIMIT_SECONDS,
    ) -> None:
        self._make_vocabulary, self._choice, self._limit = vocabulary, choice, limit
        self.wake: Callable[[], None] = lambda: None
        self._vocabulary: Vocabulary | None = None
        self._backends: dict[str, Backend | RequestError] = {}
        self._jobs: SimpleQueue[Ticket] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._abandoned: list[threading.Thread] = []
        self._cache: OrderedDict[tuple[str, str], Ticket] = OrderedDict()

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the grammars; there once any ticket has its grammar."""
        assert self._vocabulary is not None
        return self._vocabulary

    def ticket(self, structure: Structure) -> Ticket:
        """The compilation of a structure, begun now if it is new. Called by the engine's thread."""
        key = (structure.kind, structure.value)
        ticket = self._cache.get(key)
        if ticket is None or (ticket.error is not None):
            ticket = self._cache[key] = Ticket(structure)
            self._jobs.put(ticket)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="grammars", daemon=True)
                self._thread.start()
        self._cache.move_to_end(key)
        self._shrink()
        return ticket

    def _shrink(self) -> None:
        """Forget what was used longest ago, down to CACHE_BYTES; sequences keep what they use."""
        held = {k: t.grammar.cost if t.grammar else 0 for k, t in self._cache.items()}
        total = sum(held.values())
        for key, cost in list(held.items())[:-1]:
            if total <= CACHE_BYTES and len(self._cache) <= 1024:
                return
            if self._cache[key].done:
                del self._cache[key]
                total -= cost

    def _run(self) -> None:
        while True:
            ticket = self._jobs.get()
            self._abandoned = [t for t in self._abandoned if t.is_alive()]
            if len(self._abandoned) >= ABANDONED:
                ticket.settle(None, RequestError("structured output: the compiler is overloaded"))
            else:
                self._supervise(ticket)
            self.wake()

    def _supervise(self, ticket: Ticket) -> None:
        self._prepare()  # not counted: importing is no fault of the structure
        thread = threading.Thread(target=self._compile, args=(ticket,), name="grammar", daemon=True)
        thread.start()
        thread.join(self._limit)
        if thread.is_alive():
            self._abandoned.append(thread)
            what = f"a {ticket.structure.kind} that takes more than {self._limit:.0f} s to compile"
            ticket.settle(None, RequestError(what, do="make it smaller"))

    def _prepare(self) -> None:
        """Import the backends that may be asked first."""
        try:
            if self._vocabulary is None:
                self._vocabulary = self._make_vocabulary()
            if isinstance(self._backend(self._names()[0]), RequestError):
                self._backend(self._names()[-1])
        except Exception:  # told again, to the client, by _compile
            _log.exception("structured output cannot be prepared")

    def _compile(self, ticket: Ticket) -> None:
        try:
            ticket.settle(self._compiled(ticket.structure), None)
        except IsobathError as error:
            told = error if isinstance(error, RequestError) else RequestError(str(error))
            ticket.settle(None, told)
        except Exception as error:
            _log.exception("structured output: a %s", ticket.structure.kind)
            ticket.settle(None, RequestError(f"structured output: {type(error).__name__}: {error}"))

    def _names(self) -> list[str]:
        return list(BACKENDS) if self._choice == "auto" else [self._choice]

    def _compiled(self, structure: Structure) -> Grammar:
        """By the first backend that takes it."""
        refusals: list[RequestError] = []
        for name in self._names():
            backend = self._backend(name)
            try:
                if isinstance(backend, RequestError):
                    raise backend
                grammar = backend.compile(structure)
            except RequestError as error:
                refusals.append(error)
                continue
            if refusals and not isinstance(self._backends[self._names()[0]], RequestError):
                why = f"{refusals[0].asked}: {refusals[0].found}"
                _log.info("structured output by %s, for %s", name, why)
            return grammar
        raise self._refusal(refusals)

    def _refusal(self, refusals: list[RequestError]) -> RequestError:
        """What all of them said, as one error; a library that is not there has said nothing."""
        missing = [b for b in self._backends.values() if isinstance(b, RequestError)]
        said = [error for error in refusals if error not in missing] or refusals[:1]
        found = "; ".join(dict.fromkeys(f"{error.asked}: {error.found}" for error in said))
        return RequestError("the structure cannot be compiled", found=found, do=said[0].do)

    def _backend(self, name: str) -> Backend | RequestError:
        """A backend, or why there is none, found out once."""
        if name not in self._backends:
            self._backends[name] = self._loaded(name)
        return self._backends[name]

    def _loaded(self, name: str) -> Backend | RequestError:
        module, kind = BACKENDS[name]
        try:
            backend: Backend = getattr(import_module(module), kind)(self.vocabulary)
        except ImportError as error:
            instead = "" if self._choice != "auto" or name != "xgrammar" else ": trying llguidance"
            _log.info("structured output: %s cannot be imported (%s)%s", name, error, instead)
            return RequestError(
                "structured output on this server",
                found=f"{name} is not installed",
                do="install it: pip install 'isobath[structured]'",
            )
        return backend
