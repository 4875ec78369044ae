"""The socket that a server listens on, taken before anything slow happens.

A port that somebody has is told with that process's name. The limit of open files is raised,
because every stream is one.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from isobath.config import ServerConfig
from isobath.errors import ConfigError

BACKLOG = 2048
OPEN_FILES = 1 << 16


def bind(config: ServerConfig) -> socket.socket:
    """A bound, listening socket. Raises ConfigError when the address cannot be had."""
    return _unix(config.uds) if config.uds else _tcp(config.host, config.port)


def address(config: ServerConfig, bound: socket.socket) -> str:
    """Where clients find it: a URL, or the path of a Unix socket."""
    if config.uds:
        return f"unix:{config.uds}"
    host, port = bound.getsockname()[:2]
    scheme = "https" if config.ssl_certfile else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def raise_file_limit() -> int:
    """Let this process open as many files as it may, up to OPEN_FILES; says how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _tcp(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--host {host}", found=str(error)) from None
    bound = socket.socket(family, kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(where)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(f"listen on {host} port {port}", found=str(error)) from None
        raise ConfigError(
            f"listen on {host} port {port}",
            found=f"it is in use by {_listener(port) or 'a process of another user'}",
            do="stop that, or pass another --port (0 is any free one)",
        ) from None
    return bound


def _unix(path: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(OSError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
            os.unlink(path)  # left behind by a server that was killed
    try:
        bound.bind(path)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise ConfigError(f"--uds {path}", found=str(error), do="pass another path") from None
    return bound


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(path) == 0


def _listener(port: int) -> str:
    """The process that listens on a TCP port, as "python (pid 1234)"; "" if it cannot be seen."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            links = {os.readlink(link) for link in (process / "fd").iterdir()}
            if wanted & links:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                return f"{command[:80]!r} (pid {process.name})"
    return ""


def _inodes(port: int) -> Iterator[str]:
    """Sockets that listen on it."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
