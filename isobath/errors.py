"""Every error isobath raises on purpose. A message has four parts: what was asked, what was found,
what it would have caused, and what to do.

    IsobathError
    ├── ConfigError             a flag, file or config field that cannot mean anything
    ├── CheckpointError         something is wrong with a checkpoint on disk
    │   ├── UnsupportedCheckpoint   it is whole, but isobath does not run this kind
    │   ├── CorruptCheckpoint       a file is truncated, damaged or missing
    │   └── BindError               a tensor is missing, extra, or has another shape or dtype
    ├── NumericsError           values that a format cannot hold
    │   └── DialectMismatch         bytes of one FP8 dialect met a reader of the other
    ├── LayoutMismatch          a cache of one byte geometry or model met a reader of another
    ├── CaptureUnsafe           a captured step would read back, or be shaped by, a value
    ├── BackendUnavailable      an op was bound to a backend that cannot run here
    ├── EngineDied              the engine's process is gone, and its requests with it
    └── RequestError            a prompt or sampling parameter that cannot be served
        └── RequestFailed           it could be served, but computing it went wrong

`assert` marks our own bugs; these classes are for everything else.
"""


class IsobathError(Exception):
    """Base class. `asked` is the headline; the other parts follow on lines of their own."""

    def __init__(self, asked: str, *, found: str = "", effect: str = "", do: str = "") -> None:
        self.asked, self.found, self.effect, self.do = asked, found, effect, do
        lines = [asked]
        if found:
            lines.append(f"  found: {found}")
        if effect:
            lines.append(f"  effect: {effect}")
        if do:
            lines.append(f"  do: {do}")
        super().__init__("\n".join(lines))


class ConfigError(IsobathError):
    """A flag, file or config field that cannot mean anything."""


class CheckpointError(IsobathError):
    """Something is wrong with a checkpoint on disk."""


class UnsupportedCheckpoint(CheckpointError):
    """The checkpoint is whole, but isobath does not run this kind."""


class CorruptCheckpoint(CheckpointError):
    """A checkpoint file is truncated, damaged or missing."""


class BindError(CheckpointError):
    """A tensor is missing, extra, or has another shape or dtype than the config asks for."""


class NumericsError(IsobathError):
    """Values that a number format cannot hold."""


class DialectMismatch(NumericsError):
    """Bytes of one FP8 dialect met a reader of the other."""


class LayoutMismatch(IsobathError):
    """A cache written with one byte geometry, or by one model, met a reader of another."""


class CaptureUnsafe(IsobathError):
    """An operator in a step to be captured reads a value back or is shaped by one."""


class BackendUnavailable(IsobathError):
    """An op was bound to a backend that cannot run on this machine."""


class EngineDied(IsobathError):
    """The process in which the engine ran has ended."""


class RequestError(IsobathError):
    """A prompt or a sampling parameter that cannot be served. param: the field that is at fault, as
    a dotted path (messages.0.role), where it is known; `asked` begins with it."""

    def __init__(
        self,
        asked: str,
        *,
        found: str = "",
        effect: str = "",
        do: str = "",
        param: str | None = None,
    ) -> None:
        super().__init__(asked, found=found, effect=effect, do=do)
        self.param = param


class RequestFailed(RequestError):
    """Nothing is wrong with the request, but computing it raised."""
