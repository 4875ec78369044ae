"""The routing rule: sessions stick, equal beginnings meet, load is bounded, memory is bounded."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from isobath.cache.prefix import BLOCK_TOKENS
from isobath.server.routing import Affinity, block_keys

NAMES = range(4)
LOADS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 40), min_size=1)
BLOCKS = st.lists(st.integers(0, 3), max_size=4)
REQUESTS = st.lists(st.tuples(BLOCKS, st.none() | st.sampled_from("ab"), LOADS), max_size=30)


def prompt(*blocks: int, rest: int = 0) -> list[int]:
    """Whole blocks, each of one token, and `rest` tokens more."""
    return [b for b in blocks for _ in range(BLOCK_TOKENS)] + [7] * rest


def keys(*blocks: int) -> tuple[bytes, ...]:
    return block_keys(prompt(*blocks))


def even(count: int = len(NAMES)) -> dict[int, int]:
    return dict.fromkeys(range(count), 0)


@given(BLOCKS, BLOCKS, st.integers(0, BLOCK_TOKENS - 1))
def test_keys_are_equal_exactly_as_far_as_the_tokens_are(
    a: list[int], b: list[int], rest: int
) -> None:
    common = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    common = min(len(a), len(b)) if common is None else common
    one, two = block_keys(prompt(*a, rest=rest)), keys(*b)
    assert len(one) == len(a)
    assert [x == y for x, y in zip(one, two, strict=False)] == [
        i < common for i in range(min(len(a), len(b)))
    ]


@given(REQUESTS, st.integers(0, 10))
def test_every_choice_follows_the_rule(
    requests: list[tuple[list[int], str | None, dict[int, int]]], margin: int
) -> None:
    """Against what a plain history of the requests says."""
    affinity: Affinity[int] = Affinity(margin=margin)
    seen: dict[int, set[bytes]] = {name: set() for name in NAMES}
    homes: dict[str, int] = {}
    for blocks, session, loads in requests:
        ids = keys(*blocks)
        chosen = affinity.choose(ids, session, loads)
        assert chosen == affinity.choose(ids, session, loads)  # asking changes nothing
        least = min(loads.values())
        depth = {n: sum(k in seen[n] for k in ids) for n in loads}
        if session in homes and homes[session] in loads:
            assert chosen == homes[session]
        elif max(depth.values()) == 0 or loads[chosen] == least:
            deepest = [n for n in loads if depth[n] == max(depth.values())]
            near = min(loads[n] for n in deepest) <= least + margin
            assert loads[chosen] == least
            assert max(depth.values()) == 0 or chosen in deepest or not near
        else:
            assert depth[chosen] == max(depth.values())
            assert loads[chosen] <= least + margin
            assert all(loads[chosen] <= loads[n] for n in loads if depth[n] == depth[chosen])
        affinity.routed(ids, session, chosen)
        seen[chosen].update(ids)
        if session is not None:
            homes[session] = chosen


def test_equal_beginnings_meet_and_the_longest_one_wins() -> None:
    affinity: Affinity[int] = Affinity()
    affinity.routed(keys(1, 2), None, 0)
    affinity.routed(keys(1, 2, 3), None, 1)
    affinity.routed(keys(1), None, 2)
    assert affinity.choose(keys(1, 2, 3, 4), None, even()) == 1
    assert affinity.choose(keys(1, 2, 5), None, {0: 1, 1: 0, 2: 0, 3: 0}) == 1
    assert affinity.choose(keys(1, 2, 5), None, {0: 1, 2: 0, 3: 0}) == 0


def test_an_overloaded_replica_is_left_alone() -> None:
    affinity: Affinity[int] = Affinity(margin=8)
    affinity.routed(keys(1), None, 0)
    assert affinity.choose(keys(1), None, {0: 8, 1: 0}) == 0
    assert affinity.choose(keys(1), None, {0: 9, 1: 0}) == 1
    affinity.routed(keys(1), None, 1)  # now both know it, and share its requests
    assert affinity.choose(keys(1), None, {0: 9, 1: 5}) == 1


def test_a_session_stays_even_with_an_overloaded_replica_and_moves_when_it_dies() -> None:
    affinity: Affinity[int] = Affinity(margin=2)
    affinity.routed((), "s", 0)
    assert affinity.choose((), "s", {0: 99, 1: 0}) == 0
    assert affinity.choose((), "s", {1: 0}) == 1
    affinity.forget(0)
    affinity.routed(keys(1), None, 1)
    assert affinity.choose(keys(1), "s", {0: 0, 1: 0}) == 1


def test_prompts_without_a_block_take_turns() -> None:
    affinity: Affinity[int] = Affinity()
    taken: Counter[int] = Counter()
    for _ in range(40):
        name = affinity.choose((), None, even())
        affinity.routed((), None, name)
        taken[name] += 1
    assert set(taken.values()) == {10}


def test_routers_that_know_nothing_of_each_other_agree_and_spread() -> None:
    one, two = Affinity[int](), Affinity[int]()
    beginnings = [block_keys([seed] * BLOCK_TOKENS) for seed in range(400)]
    first = [one.choose(k, None, even()) for k in beginnings]
    assert first == [two.choose(k, None, even()) for k in reversed(beginnings)][::-1]
    # 400 draws of 4: 100 each with a standard deviation of 8.7; five of them
    assert all(56 <= n <= 144 for n in Counter(first).values())
    # Without replica 3 only its own prompts move: the names are hashed, not their count.
    left = {0: 0, 1: 0, 2: 0}
    assert all(
        one.choose(k, None, left) == n for k, n in zip(beginnings, first, strict=True) if n != 3
    )


def test_a_replica_that_came_back_is_not_credited_with_what_it_lost() -> None:
    affinity: Affinity[int] = Affinity()
    affinity.routed(keys(1, 2), "s", 0)
    affinity.routed(keys(1), None, 1)
    affinity.forget(0)
    assert affinity.known(0) == 0
    assert affinity.choose(keys(1, 2), "s", even(2)) == 1


@given(st.lists(BLOCKS, max_size=40), st.integers(1, 5))
def test_memory_is_bounded_and_forgets_ends_before_beginnings(
    prompts: list[list[int]], most: int
) -> None:
    affinity: Affinity[int] = Affinity(most_blocks=most, most_sessions=most)
    for i, blocks in enumerate(prompts):
        affinity.routed(keys(*blocks), f"s{i}", 0)
        assert affinity.known(0) <= most
        assert affinity.matched(keys(*blocks), 0) == min(len(blocks), most)
    homes = [i for i in range(len(prompts)) if affinity.choose((), f"s{i}", {0: 9, 1: 0}) == 0]
    assert homes == list(range(len(prompts)))[-most:]
