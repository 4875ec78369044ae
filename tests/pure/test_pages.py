"""Ownership of pages, slots and cached blocks under any sequence of operations.

The prefix cache is driven by owners that hold pages as sequences do; after every operation the
allocators' own audit runs against everybody who holds something.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from isobath.cache.pages import NULL_PAGE, PageAllocator, SlotAllocator
from isobath.cache.prefix import BLOCK_TOKENS, PrefixCache

PAGES, SNAPSHOTS = 9, 2


# ---- allocators


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("asr"), st.integers(0, 7)), max_size=60))
def test_pages_are_free_or_owned_after_any_operations(operations: list[tuple[str, int]]) -> None:
    pages, held = PageAllocator(6), []
    for kind, number in operations:
        if kind == "a":
            free = pages.num_free
            got = pages.allocate(number)
            assert (got is None) == (number > free)
            assert NULL_PAGE not in (got or []) and not set(got or []) & set(held)
            held += got or []
        elif held and kind == "s":
            pages.share(held[number % len(held)])
            held.append(held[number % len(held)])
        elif held:
            pages.release(held.pop(number % len(held)))
        pages.check([held])
        assert pages.num_free == 5 - len(set(held))


def test_a_page_cannot_be_released_or_shared_without_an_owner() -> None:
    pages = PageAllocator(3)
    (page,) = pages.allocate(1) or []
    pages.release(page)
    with pytest.raises(AssertionError):
        pages.release(page)
    with pytest.raises(AssertionError):
        pages.share(page)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-1, 5), max_size=40))
def test_slots_have_one_owner_after_any_operations(operations: list[int]) -> None:
    """-1 takes a slot, anything else gives one back."""
    slots, held = SlotAllocator(4, 3), []
    for number in operations:
        if number < 0:
            slot = slots.take()
            assert (slot is None) == (len(held) == 3)
            if slot is not None:
                assert slot in range(4, 7) and slot not in held
                held.append(slot)
        elif held:
            slots.give(held.pop(number % len(held)))
        slots.check(held)
        assert slots.num_free == 3 - len(held)


def test_a_slot_cannot_be_given_back_twice() -> None:
    slots = SlotAllocator(1, 2)
    slot = slots.take()
    assert slot is not None
    slots.give(slot)
    with pytest.raises(KeyError):
        slots.give(slot)


@pytest.mark.parametrize("held", [[[1]], [[1, 2], [2]], [[1], [2], [3]], [[0, 1, 2]]])
def test_the_audit_of_pages_finds_a_wrong_owner(held: list[list[int]]) -> None:
    pages = PageAllocator(4)
    assert pages.allocate(2) == [1, 2]
    with pytest.raises(AssertionError):
        pages.check(held)


# ---- prefix cache


def tokens_of(letters: str) -> list[int]:
    """One block of equal tokens a letter."""
    return [ord(letter) for letter in letters for _ in range(BLOCK_TOKENS)]


class Owners(RuleBasedStateMachine):
    """Sequences over the alphabet of blocks that come, are cached, go, and come again."""

    @initialize()
    def start(self) -> None:
        self.pages, self.slots = PageAllocator(PAGES), SlotAllocator(5, SNAPSHOTS)
        self.cache = PrefixCache("model", self.pages, self.slots)
        self.sequences: list[tuple[str, list[bytes], list[int]]] = []
        self.written: dict[int, str] = {}
        """Which prefix's last block each page holds, as a device would."""
        self.snapshot_of: dict[int, str] = {}

    @rule(letters=st.text("ab", min_size=1, max_size=4))
    def come(self, letters: str) -> None:
        """Start from the cache, compute the rest, remember it; give up when pages run out."""
        tokens, keys = [*tokens_of(letters), 0], []
        hit = self.cache.match(keys, tokens)
        pages = list(hit.pages) if hit else []
        if hit:
            assert hit.tokens == len(pages) * BLOCK_TOKENS
            prefixes = [letters[: i + 1] for i in range(len(pages))]
            assert [self.written[page] for page in pages] == prefixes
            assert self.snapshot_of[hit.snapshot] == prefixes[-1]
        missing = len(letters) - len(pages)
        self.cache.evict(max(0, missing - self.pages.num_free))
        fresh = self.pages.allocate(missing)
        if fresh is None:
            for page in pages:
                self.pages.release(page)
            return
        for i, page in enumerate(fresh, start=len(pages)):
            self.written[page] = letters[: i + 1]
        pages += fresh
        self.sequences.append((letters, keys, pages))

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def remember(self, data: st.DataObject) -> None:
        letters, keys, pages = data.draw(st.sampled_from(self.sequences))
        blocks = data.draw(st.integers(1, len(letters)))
        self.cache.insert(keys[:blocks], pages[:blocks])
        slot = self.cache.snapshot_for(keys[blocks - 1])
        if slot is not None:
            self.snapshot_of[slot] = letters[:blocks]

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.sequences) - 1))
        for page in self.sequences.pop(index)[2]:
            self.pages.release(page)

    @rule(count=st.integers(0, PAGES))
    def evict(self, count: int) -> None:
        shared = {page for _, _, pages in self.sequences for page in pages}
        before, free = set(self.cache.held_pages()), self.pages.num_free
        freed = self.cache.evict(count)
        gone = before - set(self.cache.held_pages())
        assert freed == len(gone) <= count and self.pages.num_free == free + freed
        assert not gone & shared, "a page was evicted under its owner"

    @invariant()
    def nothing_is_lost(self) -> None:
        self.pages.check([*(pages for _, _, pages in self.sequences), self.cache.held_pages()])
        self.slots.check(self.cache.held_snapshots())
        assert len(self.cache.held_pages()) == len(self.cache)


def test_cache_and_sequences_lose_and_mix_up_nothing() -> None:
    run_state_machine_as_test(
        Owners, settings=settings(max_examples=80, stateful_step_count=30, deadline=None)
    )


def cached(cache: PrefixCache, pages: PageAllocator, letters: str, *, kept: bool = True) -> bytes:
    """Insert the blocks of `letters`, take a snapshot of the last; its key. Nobody holds them."""
    keys: list[bytes] = []
    cache.extend(keys, tokens_of(letters), len(letters))
    own = pages.allocate(len(letters))
    assert own is not None
    cache.insert(keys, own)
    for page in own:
        pages.release(page)
    if kept:
        assert cache.snapshot_for(keys[-1]) is not None
    return keys[-1]


def found(cache: PrefixCache, pages: PageAllocator, letters: str) -> int:
    """Blocks of a hit for `letters` and one token more, which is given back at once."""
    hit = cache.match([], [*tokens_of(letters), 0])
    for page in hit.pages if hit else ():
        pages.release(page)
    return len(hit.pages) if hit else 0


def empty(count: int = 32, snapshots: int = 8) -> tuple[PrefixCache, PageAllocator]:
    pages = PageAllocator(count)
    return PrefixCache("model", pages, SlotAllocator(1, snapshots)), pages


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=5), st.text("abc", max_size=5))
def test_a_match_is_the_longest_common_prefix_with_a_snapshot(
    known: list[str], wanted: str
) -> None:
    cache, pages = empty()
    for letters in known:
        keys: list[bytes] = []
        if found(cache, pages, letters) < len(letters):
            cached(cache, pages, letters, kept=False)
        cache.extend(keys, tokens_of(letters), len(letters))
        cache.snapshot_for(keys[-1])
    best = max((len(letters) for letters in known if wanted.startswith(letters)), default=0)
    assert found(cache, pages, wanted) == best


def test_a_match_leaves_a_token_to_compute() -> None:
    cache, pages = empty()
    cached(cache, pages, "ab")
    assert cache.match([], tokens_of("ab")) is None  # "a" has no snapshot
    assert found(cache, pages, "ab") == 2


def test_another_identity_finds_nothing() -> None:
    cache, pages = empty()
    key = cached(cache, pages, "a")
    other: list[bytes] = []
    PrefixCache("other", pages, SlotAllocator(1, 1)).extend(other, tokens_of("a"), 1)
    assert other != [key]


def test_the_least_recently_used_block_goes_first() -> None:
    cache, pages = empty()
    for letters in "abc":
        cached(cache, pages, letters)
    assert found(cache, pages, "a") == 1  # used again, so b is the oldest
    assert cache.evict(1) == 1
    assert [found(cache, pages, letters) for letters in "abc"] == [1, 0, 1]


def test_leaves_go_before_the_blocks_they_continue() -> None:
    cache, pages = empty()
    for letters in ("a", "ab", "abc"):
        if len(letters) == 1:
            cached(cache, pages, letters)
        else:
            keys: list[bytes] = []
            cache.extend(keys, tokens_of(letters), len(letters))
            own = pages.allocate(len(letters)) or []
            cache.insert(keys, own)
            cache.snapshot_for(keys[-1])
            for page in own:
                pages.release(page)
    for left in (2, 1, 0):
        assert cache.evict(1) == 1
        assert found(cache, pages, "abc") == left
    assert cache.evict(1) == 0 and pages.num_free == 31


def test_a_held_page_is_not_evicted_and_goes_once_it_is_free() -> None:
    cache, pages = empty()
    cached(cache, pages, "a")
    hit = cache.match([], [*tokens_of("a"), 0])
    assert hit is not None
    assert cache.evict(5) == 0
    pages.release(hit.pages[0])
    assert cache.evict(5) == 1


def test_the_oldest_snapshot_makes_room_for_a_new_one() -> None:
    cache, pages = empty(snapshots=2)
    for letters in "ab":
        cached(cache, pages, letters)
    assert found(cache, pages, "a") == 1
    cached(cache, pages, "c")
    assert [found(cache, pages, letters) for letters in "abc"] == [1, 0, 1]
    assert len(cache) == 3 and len(set(cache.held_snapshots())) == 2


def test_evicting_many_blocks_looks_at_each_a_few_times() -> None:
    """4,096 single evictions of 4,096 leaves, beside 64 held ones that are older than all."""
    cache, pages = empty(count=4300)
    looked = 0
    references = pages.references

    def counting(page: int) -> int:
        nonlocal looked
        looked += 1
        return references(page)

    pages.references = counting  # type: ignore[method-assign]  # counts, changes nothing
    for number in range(64 + 4096):
        keys: list[bytes] = []
        cache.extend(keys, [number] * BLOCK_TOKENS, 1)
        own = pages.allocate(1) or []
        cache.insert(keys, own)
        if number >= 64:
            pages.release(own[0])
    for _ in range(4096):
        assert cache.evict(1) == 1
    # Each held leaf comes up once for every time the others are through: once, and once more after.
    assert looked <= 4096 + 2 * 64
