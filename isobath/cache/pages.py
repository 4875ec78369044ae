"""Who owns which page: reference counts, a free list, and page 0, which belongs to nobody.

A page is PAGE_TOKENS tokens of compressed entries in every layer (cache/pool.py). A sequence holds
one reference on each of its pages and the prefix cache one on each page it can hand out again; a
page without references is free. Nothing here touches a byte of a page.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

NULL_PAGE = 0


class PageAllocator:
    """Pages 1 .. count - 1. The only mutable truth about their ownership."""

    def __init__(self, count: int) -> None:
        assert count >= 1, count
        self.count = count
        self._free = deque(range(1, count))
        self._references = [0] * count

    @property
    def num_free(self) -> int:
        return len(self._free)

    def allocate(self, count: int) -> list[int] | None:
        """Take `count` free pages with one reference each; None, and nothing taken, if too few."""
        if count > len(self._free):
            return None
        pages = [self._free.popleft() for _ in range(count)]
        for page in pages:
            self._references[page] = 1
        return pages

    def share(self, page: int) -> None:
        """One more owner for a page that has one."""
        assert self._references[page] > 0, page
        self._references[page] += 1

    def release(self, page: int) -> None:
        """One owner less; the last one frees the page."""
        assert self._references[page] > 0, page
        self._references[page] -= 1
        if not self._references[page]:
            self._free.append(page)

    def references(self, page: int) -> int:
        return self._references[page]

    def check(self, held: Iterable[Iterable[int]]) -> None:
        """Assert that every page is free or owned, and owned as often as `held` (one iterable of
        pages an owner) says."""
        expected = Counter(page for pages in held for page in pages)
        assert NULL_PAGE not in expected, "the null page has an owner"
        assert len(set(self._free)) == len(self._free), "a page is free twice"
        for page in range(1, self.count):
            owners, counted = expected[page], self._references[page]
            assert owners == counted, f"page {page}: {counted} references, {owners} owners"
        free = {page for page in range(1, self.count) if not self._references[page]}
        assert free == set(self._free), "free list and reference counts disagree"


class SlotAllocator:
    """Slots first .. first + count - 1, each held by one owner at a time."""

    def __init__(self, first: int, count: int) -> None:
        self._free = deque(range(first, first + count))
        self._held: set[int] = set()

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self) -> int | None:
        """A free slot, or None."""
        if not self._free:
            return None
        slot = self._free.popleft()
        self._held.add(slot)
        return slot

    def give(self, slot: int) -> None:
        """Return a slot that take() gave."""
        self._held.remove(slot)
        self._free.append(slot)

    def check(self, held: Iterable[int]) -> None:
        """Assert that exactly the slots `held` are taken, each once."""
        slots = list(held)
        assert len(slots) == len(set(slots)), "a slot has two owners"
        assert set(slots) == self._held, f"held {sorted(self._held)}, owned {sorted(slots)}"
