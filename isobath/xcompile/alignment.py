"""Whether addresses are as aligned as a compiled kernel says: what NVIDIA's code claims, against
the addresses that gfx942's code is seen to use.

A 16-byte load of PTX faults on an address that is no multiple of 16; gfx942 takes any multiple of
4, so a false claim of Triton's analysis (LOG.md, 2026-11-22) shows on the first machine alone. Both
targets are compiled from one launch, with the same tiles, and both keep each access's place in the
source (.loc). Where PTX has accesses of W bytes a thread, all that is touched there must be whole
aligned blocks of W bytes, in whatever pieces gfx942 touches it: a vector that begins elsewhere
leaves a block half read. Blocks may be half read if every piece begins at one: gfx942 reads the low
half of a number of which no more is used, where PTX reads it whole. (Were it the high half, an
address that is wrong by just that much would pass.) A place with accesses of several widths is held
to the least of them. gfx942's scalar loads are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from isobath.emulator import run_program
from isobath.emulator.bits import Array
from isobath.emulator.code import parse_text
from isobath.numerics import FNUZ
from isobath.xcompile.emulate import argument_value
from isobath.xcompile.target import MACHINES
from isobath.xcompile.triton_build import compiled
from isobath.xcompile.triton_record import Launch

Place = tuple[str, int, int]
"""File name, line and column of a .loc."""
_LOC = re.compile(r"^\s*\.loc\s+(\d+)\s+(\d+)\s+(\d+)")
_FILE = re.compile(r'^\s*\.file\s+(\d+)\s+"([^"]*)"(?:\s+"([^"]*)")?')
_PTX = re.compile(r"(?:ld|st)\.global(?:\.\w+)*?(?:\.v(\d))?\.[bfsu](\d+)\s")


@dataclass(frozen=True, slots=True)
class Verdict:
    """false: claims that do not hold, a line each. compared: places of the source that were judged,
    having accesses on both machines."""

    false: tuple[str, ...]
    compared: int


@dataclass(slots=True)
class Seen:
    """A Watch: the addresses that each instruction touched, with the width of the access."""

    touched: dict[int, list[tuple[Array, int]]] = field(default_factory=dict)

    def lds(
        self, site: int, offset: Array, width: int, lanes: Array | None, words: list[Array] | None
    ) -> None:
        """Not global memory."""

    def memory(self, site: int, address: Array, width: int, lanes: Array | None, what: str) -> None:
        used = np.unique(address if lanes is None else address[lanes])
        self.touched.setdefault(site, []).append((used, width))


def half_touched(accesses: list[tuple[Array, int]], width: int) -> int:
    """How many aligned blocks of `width` bytes are touched and not wholly; none if every access
    begins at a block."""
    if not any((a % width).any() for a, _ in accesses):
        return 0
    bits = np.bitwise_or.reduce([np.bitwise_or.reduce(a, initial=w) for a, w in accesses])
    unit = min(int(bits & -bits), width)
    cells = [((a[:, None] + np.arange(0, w, unit)) // unit).ravel() for a, w in accesses]
    _, counts = np.unique(np.unique(np.concatenate(cells)) // (width // unit), return_counts=True)
    return int((counts < width // unit).sum())


def places(text: str) -> Iterator[tuple[int, str, Place]]:
    """(line number, line, place) of every line of assembly behind a .loc. Inline assembly is at
    its first .loc: for each of its lines Triton 3.9 counts a line of the source further."""
    lines = text.splitlines()
    named = [match for line in lines if (match := _FILE.match(line))]
    files = {m[1]: (m[3] or m[2]).rsplit("/", 1)[-1] for m in named}
    place: Place | None = None
    inside = counted = False
    for number, line in enumerate(lines, 1):
        if "inline asm" in line:
            inside, counted = "begin inline asm" in line, False
        if match := _LOC.match(line):
            if not (inside and counted):
                place = files.get(match[1], match[1]), int(match[2]), int(match[3])
            counted = inside
        elif place:
            yield number, line, place


def claims(ptx: str) -> dict[Place, int]:
    """Bytes of the narrowest access of global memory at each place."""
    found: dict[Place, int] = {}
    for _, line, place in places(ptx):
        if match := _PTX.search(line):
            width = int(match[1] or 1) * int(match[2]) // 8
            found[place] = min(width, found.get(place, width))
    return found


def misaligned(launch: Launch) -> Verdict:
    """What PTX claims falsely of one gfx942 launch, which is executed on its tensors; they are
    changed in place. Raises what the compilers and the emulator raise."""
    by_place = touched(launch)
    both = {
        place: width
        for place, width in sorted(claims(compiled(for_nvidia(launch)).assembly).items())
        if place in by_place
    }
    broken = {place: half_touched(by_place[place], width) for place, width in both.items()}
    false = (
        f"{launch.name} {file}:{line}:{column}: {width} bytes at once on sm_90, "
        f"but {broken[file, line, column]} aligned blocks of {width} are touched in part"
        for (file, line, column), width in both.items()
        if broken[file, line, column]
    )
    return Verdict(tuple(false), len(both))


def touched(launch: Launch) -> dict[Place, list[tuple[Array, int]]]:
    """(addresses, width) of what a gfx942 launch touches at each place, by executing it."""
    binary = compiled(launch)
    program, seen = parse_text(binary.assembly), Seen()
    run_program(
        program,
        launch.grid,
        [(a.name, argument_value(a)) for a in launch.arguments],
        num_warps=int(launch.options["num_warps"]),
        lds_bytes=binary.shared_bytes,
        checks="none",
        watch=seen,
    )
    at = {number: place for number, _, place in places(binary.assembly)}
    by_place: dict[Place, list[tuple[Array, int]]] = {}
    for site, accesses in seen.touched.items():
        place = at.get(program.instructions[site].line)
        if place:
            by_place.setdefault(place, []).extend(accesses)
    return by_place


def foreign_to_nvidia(launch: Launch) -> bool:
    """Whether a type that sm_90 lacks, FNUZ, is compiled into a launch: it cannot be judged."""
    return any(str(value) == FNUZ.triton_name for value in launch.constexprs.values())


def for_nvidia(launch: Launch) -> Launch:
    """The same launch, its tiles and warps kept, as sm_90 would compile it."""
    kept = {name: launch.options[name] for name in ("num_warps", "num_stages")}
    attrs = {
        at: [pair for pair in pairs if pair[0] != "tt.pointer_range"]
        for at, pairs in launch.attrs.items()
    }
    return replace(launch, machine=MACHINES["sm_90"], options=kept, attrs=attrs)
