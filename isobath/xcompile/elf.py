"""Sections of a linked binary: as much of ELF64 as naming a kernel's machine code takes."""

from __future__ import annotations

import hashlib
import struct


def sections(code: bytes) -> dict[str, bytes]:
    """Section name -> bytes; sections without bytes in the file are left out."""
    assert code[:6] == b"\x7fELF\x02\x01", "not a little-endian ELF64"
    (table,) = struct.unpack_from("<Q", code, 0x28)
    size, count, names = struct.unpack_from("<3H", code, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", code, table + i * size) for i in range(count)]
    start = headers[names][4]
    found = {}
    for name, kind, _, _, offset, length in headers:
        if kind not in (0, 8):  # unused; takes no room in the file
            end = code.index(b"\0", start + name)
            found[code[start + name : end].decode()] = code[offset : offset + length]
    return found


def code_hash(code: bytes) -> str:
    """SHA-256 of the instructions and of AMD's kernel descriptor (registers, modes).

    Nothing else: debug sections name source lines, which a comment would change, and the
    descriptor's bytes 16 to 23 say how far away the code lies, which a longer name would change.
    """
    digest = hashlib.sha256()
    for name, data in sorted(sections(code).items()):
        if name == ".rodata":
            data = data[:16] + data[24:]
        elif not name.startswith(".text"):
            continue
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
