"""Strategies against naive references, and what they all promise: each once, as many as asked for, the same by seed."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from stillroom import kinds
from stillroom.kinds import Strategy, parse
from stillroom.questions import choosing
from stillroom.questions.choosing import Looking
from stillroom.rows import Array, Pool

KINDS = ["random", "entropy", "margin", "committee", "diverse", "margin_diverse", "on_policy"]


def pool(rows: int = 60, members: int = 3, classes: int = 4, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    p_SNC = rng.dirichlet(np.full(classes, 0.5), (members, rows)).astype(np.float32)
    return Pool(rows, p_SNC, rng.normal(size=(rows, 5)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32))


def strategy(kind: str, **knobs: Any) -> Strategy:
    found: Strategy = parse("strategy", {"kind": kind, **knobs})
    return found


def naive_entropy(p: list[float]) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


def naive_kl(p: list[float], q: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)


def naive_doubt(kind: str, given: Pool) -> list[float]:
    assert given.probabilities_SNC is not None
    found = []
    for row in range(given.count):
        members = [[float(x) for x in p] for p in given.probabilities_SNC[:, row]]
        mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
        if kind == "entropy":
            found.append(naive_entropy(mean))
        elif kind in ("margin", "margin_diverse"):
            first, second = sorted(mean)[::-1][:2]
            found.append(1 - (first - second))
        elif kind == "vote_entropy":
            votes = [p.index(max(p)) for p in members]
            found.append(naive_entropy([votes.count(c) / len(votes) for c in range(len(mean))]))
        else:
            found.append(sum(naive_kl(p, mean) for p in members) / len(members))
    return found


@pytest.mark.parametrize("kind", ["entropy", "margin", "committee", "margin_diverse"])
def test_doubt_is_what_its_definition_says(kind: str) -> None:
    one = strategy(kind)
    assert isinstance(one, Looking)
    np.testing.assert_allclose(one.doubt(pool()), naive_doubt(kind, pool()), rtol=1e-5, atol=1e-7)


def test_the_committee_can_count_votes() -> None:
    one = strategy("committee", disagreement="vote_entropy", size=4)
    assert isinstance(one, Looking)
    assert one.students() == 4
    np.testing.assert_allclose(one.doubt(pool()), naive_doubt("vote_entropy", pool()), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", ["entropy", "margin", "committee"])
def test_the_most_doubtful_are_chosen_first(kind: str) -> None:
    found = strategy(kind).choose(pool(), 10, 0)
    doubt = naive_doubt(kind, pool())
    assert [doubt[place] for place in found] == pytest.approx(sorted(doubt, reverse=True)[:10])


def naive_k_centre(rows: Array, asked: Array, count: int, candidates: list[int]) -> list[int]:
    centres, taken = [*asked], []
    for _ in range(count):
        far = {place: min(math.dist(rows[place], one) for one in centres) for place in candidates if place not in taken}
        taken.append(max(far, key=lambda place: far[place]))
        centres.append(rows[taken[-1]])
    return taken


def test_diverse_is_greedy_k_centre() -> None:
    given = pool()
    assert given.features_NH is not None
    assert given.asked_features_MH is not None
    expected = naive_k_centre(given.features_NH, given.asked_features_MH, 12, list(range(given.count)))
    assert strategy("diverse").choose(given, 12, 3).tolist() == expected


def test_diverse_without_anything_asked_begins_anywhere_and_covers() -> None:
    corners = np.repeat(np.array(list(itertools.product([0.0, 9.0], repeat=2))), 5, axis=0)
    found = choosing.k_centre(corners, np.empty((0, 2)), 4, 1)
    assert {tuple(corners[place]) for place in found} == {(0, 0), (0, 9), (9, 0), (9, 9)}
    firsts = {int(choosing.k_centre(corners, np.empty((0, 2)), 1, seed)[0]) for seed in range(20)}
    assert len(firsts) > 4


def test_margin_diverse_is_k_centre_among_the_smallest_margins() -> None:
    given, count, among = pool(), 6, 3
    assert given.features_NH is not None
    assert given.asked_features_MH is not None
    doubt = naive_doubt("margin", given)
    near = sorted(range(given.count), key=lambda place: -doubt[place])[: count * among]
    expected = naive_k_centre(given.features_NH, given.asked_features_MH, count, near)
    assert strategy("margin_diverse", among=among).choose(given, count, 0).tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_chosen_once_and_by_seed_alone(kind: str) -> None:
    one = strategy(kind)
    found = one.choose(pool(), 25, 7)
    assert found.dtype == np.int64
    assert len(set(found.tolist())) == 25
    np.testing.assert_array_equal(found, one.choose(pool(), 25, 7))
    assert sorted(one.choose(pool(), 100, 7).tolist()) == list(range(60))
    assert len(one.choose(pool(), 0, 7)) == 0


@pytest.mark.parametrize("kind", ["random", "entropy", "margin", "committee"])
def test_the_seed_breaks_ties(kind: str) -> None:
    level = Pool(50, np.full((3, 50, 4), 0.25))
    one = strategy(kind)
    assert one.choose(level, 10, 0).tolist() == one.choose(level, 10, 0).tolist()
    assert one.choose(level, 10, 0).tolist() != one.choose(level, 10, 1).tolist()
    assert one.choose(level, 10, 0).tolist() != list(range(10))


def test_identical_rows_do_not_stop_k_centre() -> None:
    found = choosing.k_centre(np.zeros((9, 3)), np.zeros((2, 3)), 9, 0)
    assert sorted(found.tolist()) == list(range(9))


def test_a_single_class_leaves_no_margin() -> None:
    assert choosing.margin(np.ones((3, 1))).tolist() == [1, 1, 1]


def test_probabilities_of_zero_are_no_doubt() -> None:
    certain = np.eye(3)[None].repeat(2, 0)
    for measure in (choosing.vote_entropy, choosing.consensus_divergence):
        np.testing.assert_allclose(measure(certain), 0, atol=1e-12)
    np.testing.assert_allclose(choosing.entropy(certain[0]), 0, atol=1e-9)


def test_strategies_are_a_group_of_kinds_and_may_be_named_alone() -> None:
    assert set(KINDS) <= set(kinds.TABLE["strategy"])
    from stillroom.recipe import Rounds

    found = Rounds.model_validate({"strategy": "margin", "budgets": [64], "compare": ["random", {"kind": "committee"}]})
    assert [one.kind for one in (found.strategy, *found.compare)] == ["margin", "random", "committee"]
    assert Rounds.model_validate(found.model_dump(mode="json")) == found
