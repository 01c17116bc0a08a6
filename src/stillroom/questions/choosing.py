"""Which questions to ask next: pure functions of what students say of those that were not asked yet.

A strategy looks at a Pool, never at a question, a label or an answer. The same pool and seed, the same choice; questions
of equal doubt are put in an order that the seed draws, so that no choice hangs on the order of a file.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from stillroom.kinds import Strategy
from stillroom.rows import Array, Pool

LEAST = 1e-12
"""Below this a probability counts as 0 in p log p."""


def entropy(probabilities_NC: Array) -> Array:
    """Entropy of each row, nats [N]."""
    p_NC = probabilities_NC.astype(np.float64)
    found: Array = -(p_NC * np.log(np.maximum(p_NC, LEAST))).sum(1)
    return found


def margin(probabilities_NC: Array) -> Array:
    """The two largest probabilities' difference [N], in 0 to 1: near 0 where a student hesitates between two classes."""
    p_NC = probabilities_NC.astype(np.float64)
    if p_NC.shape[1] < 2:
        return np.ones(len(p_NC))
    top_N2 = np.partition(p_NC, -2, axis=1)[:, -2:]
    found: Array = top_N2[:, 1] - top_N2[:, 0]
    return found


def vote_entropy(probabilities_SNC: Array) -> Array:
    """Entropy of the members' votes on each row, nats [N] (Dagan and Engelson 1995)."""
    classes = probabilities_SNC.shape[2]
    votes_NC = np.eye(classes)[probabilities_SNC.argmax(2)].mean(0)
    return entropy(votes_NC)


def consensus_divergence(probabilities_SNC: Array) -> Array:
    """Mean KL(member, mean of all members) of each row, nats [N] (McCallum and Nigam 1998)."""
    p_SNC = probabilities_SNC.astype(np.float64)
    # sum over S of KL(p_s, mean) / S is the entropy of the mean less the mean entropy.
    mean_N = np.mean([entropy(p_NC) for p_NC in p_SNC], axis=0)
    found: Array = np.maximum(entropy(p_SNC.mean(0)) - mean_N, 0.0)
    return found


def most(score_N: Array, count: int, seed: int) -> Array:
    """Places of the `count` largest scores, int64, largest first; the seed orders those that are equal."""
    order_N = np.random.default_rng(seed).permutation(len(score_N))
    found: Array = order_N[np.argsort(-score_N[order_N], kind="stable")][:count]
    return found


def nearest(features_NH: Array, asked_MH: Array) -> Array:
    """Squared distance of each row to the nearest of those asked before, float64 [N]; infinite where none was."""
    far_N = np.full(len(features_NH), np.inf)
    rows_NH = features_NH.astype(np.float64)
    for start in range(0, len(asked_MH), 256):
        part_mH = asked_MH[start : start + 256].astype(np.float64)
        squares_Nm = (rows_NH**2).sum(1)[:, None] + (part_mH**2).sum(1) - 2 * rows_NH @ part_mH.T
        far_N = np.minimum(far_N, np.maximum(squares_Nm, 0.0).min(1))
    return far_N


def k_centre(features_NH: Array, asked_MH: Array, count: int, seed: int) -> Array:
    """Places of `count` rows, each the farthest from all that were asked or taken before it, int64.

    The greedy two-approximation of k-centre of Sener and Savarese 2018 (arXiv:1708.00489). Where nothing was asked yet
    the seed draws the first.
    """
    order_N = np.random.default_rng(seed).permutation(len(features_NH))
    rows_NH = features_NH[order_N].astype(np.float64)
    far_N, taken = nearest(rows_NH, asked_MH), []
    for _ in range(min(count, len(rows_NH))):
        place = int(far_N.argmax())
        taken.append(place)
        far_N = np.minimum(far_N, ((rows_NH - rows_NH[place]) ** 2).sum(1))
        far_N[taken] = -1.0
    found: Array = order_N[np.array(taken, np.int64)]
    return found


class Looking(Strategy):
    """A strategy that can say why: how much it wanted each question, and how many students it looks through."""

    def students(self) -> int:
        """How many students it wants to see at the pool; more than one are a committee."""
        return 1

    def doubt(self, pool: Pool) -> Array:
        """How much it wants each question of the pool [N], the more the larger."""
        raise NotImplementedError


class Random(Strategy):
    """Questions drawn at random: what every other strategy has to beat."""

    kind: Literal["random"] = "random"

    def choose(self, pool: Pool, count: int, seed: int) -> Array:
        return most(np.zeros(pool.count), count, seed)


class Doubtful(Looking):
    """A strategy that takes the questions it doubts most; `doubt` is all that such a kind writes."""

    wants: ClassVar[frozenset[str]] = frozenset({"probabilities"})

    def choose(self, pool: Pool, count: int, seed: int) -> Array:
        return most(self.doubt(pool), count, seed)


class Entropy(Doubtful):
    """Questions where the student spreads its probability over most classes."""

    kind: Literal["entropy"] = "entropy"

    def doubt(self, pool: Pool) -> Array:
        return entropy(_mean(pool))


class Margin(Doubtful):
    """Questions where the student's two likeliest classes are nearest to each other (Scheffer and others 2001)."""

    kind: Literal["margin"] = "margin"

    def doubt(self, pool: Pool) -> Array:
        return 1.0 - margin(_mean(pool))


class Committee(Doubtful):
    """Questions on which several students, alike but for their first weights, disagree (Seung and others 1992)."""

    kind: Literal["committee"] = "committee"
    size: int = Field(default=5, ge=2, le=100)
    """Students in it, each trained from its own seed."""
    disagreement: Literal["consensus_kl", "vote_entropy"] = "consensus_kl"
    """Mean KL from each member to their mean (McCallum and Nigam 1998), or entropy of the votes (Dagan and Engelson 1995)."""

    def students(self) -> int:
        return self.size

    def doubt(self, pool: Pool) -> Array:
        assert pool.probabilities_SNC is not None
        measure = consensus_divergence if self.disagreement == "consensus_kl" else vote_entropy
        return measure(pool.probabilities_SNC)


class Diverse(Looking):
    """Questions far from all that were asked, in the student's last hidden layer (Sener and Savarese 2018)."""

    kind: Literal["diverse"] = "diverse"
    wants: ClassVar[frozenset[str]] = frozenset({"features"})

    def doubt(self, pool: Pool) -> Array:
        features_NH, asked_MH = _features(pool)
        found: Array = np.sqrt(nearest(features_NH, asked_MH))
        return found

    def choose(self, pool: Pool, count: int, seed: int) -> Array:
        return k_centre(*_features(pool), count, seed)


class MarginDiverse(Doubtful):
    """Questions of small margin (Zhdanov 2019, arXiv:1901.05954) far from each other (Sener and Savarese 2018)."""

    kind: Literal["margin_diverse"] = "margin_diverse"
    wants: ClassVar[frozenset[str]] = frozenset({"probabilities", "features"})
    among: int = Field(default=4, ge=1)
    """So many times the questions wanted are looked at, those with the smallest margins."""

    def doubt(self, pool: Pool) -> Array:
        return 1.0 - margin(_mean(pool))

    def choose(self, pool: Pool, count: int, seed: int) -> Array:
        near_n = super().choose(pool, count * self.among, seed)
        features_NH, asked_MH = _features(pool)
        found: Array = near_n[k_centre(features_NH[near_n], asked_MH, count, seed)]
        return found


def _mean(pool: Pool) -> Array:
    """The students' mean probabilities [N, C]."""
    assert pool.probabilities_SNC is not None, "a strategy is given what it wants"
    found: Array = pool.probabilities_SNC.mean(0)
    return found


def _features(pool: Pool) -> tuple[Array, Array]:
    """Of the pool [N, H], and of what was asked before [M, H]; none: of no rows."""
    assert pool.features_NH is not None, "a strategy is given what it wants"
    asked_MH = pool.asked_features_MH
    return pool.features_NH, np.empty((0, pool.features_NH.shape[1])) if asked_MH is None else asked_MH
