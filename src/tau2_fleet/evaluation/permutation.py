"""Tests of whether two sides differ on the same tasks: sign-flip permutation, McNemar's, and Holm's for several.

`paired.py` chooses among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_EXACT_WORK = 30_000_000
"""Tasks times points of the lattice up to which the distribution is enumerated."""
_DRAWS = 19_999
_CHUNK = 2_000
SEED = 20_240_612
"""Of whatever is drawn here and in `paired.py`: the same input gives the same figures."""


def sign_flip(differences: NDArray[numpy.float64], unit: int | None = None) -> float:
    """Two-sided p of the sign-flip permutation test: how often random signs give as large a sum (Fisher 1935, Pitman
    1937, Supplement to the J. Royal Stat. Soc. 4:119-130).

    Under the hypothesis that the sides are alike, a task's difference is as likely as its negative.

    Args:
        differences: one a task.
        unit: what makes every difference a whole number, such as the number of trials; the distribution is then
            enumerated, and the test is exact. Without one, or where that is too much, 19,999 seeded draws estimate p
            with the observed signs among them, so that the test stays valid (Phipson and Smyth 2010,
            doi:10.2202/1544-6115.1585).
    """
    import numpy

    sizes = numpy.abs(differences[differences != 0])
    if not len(sizes):
        return 1.0
    observed = abs(float(differences.sum()))
    if unit is not None:
        whole = numpy.rint(sizes * unit).astype(numpy.int64)
        if int(whole.sum()) * len(whole) <= _EXACT_WORK:
            return _enumerated(whole, round(observed * unit))
    random = numpy.random.default_rng(SEED)
    reached, slack = 0, 1e-9 * float(sizes.sum())
    for begin in range(0, _DRAWS, _CHUNK):
        signs = random.integers(0, 2, (min(_CHUNK, _DRAWS - begin), len(sizes)), dtype=numpy.int8) * 2 - 1
        reached += int((numpy.abs(signs @ sizes) >= observed - slack).sum())
    return (1 + reached) / (1 + _DRAWS)


def _enumerated(sizes: NDArray[numpy.int64], observed: int) -> float:
    """P(|sum of sizes with random signs| >= observed), by the distribution of the part that gets a plus."""
    import numpy

    total = int(sizes.sum())
    chances = numpy.zeros(total + 1)
    chances[0] = 1.0
    reach = 0
    for size in sizes.tolist():
        moved = chances[: reach + 1] * 0.5
        chances[: reach + 1] = moved
        chances[size : size + reach + 1] += moved
        reach += size
    return 1.0 if observed == 0 else min(1.0, 2.0 * float(chances[(total + observed + 1) // 2 :].sum()))


def relabel(counts: NDArray[numpy.int64]) -> float:
    """Two-sided mid-p when the trials of each task are dealt to the sides anew: valid for any numbers of trials.

    Estimated from 19,999 seeded draws; those as large as what was observed count half (Lancaster 1961, JASA 56:223).

    Args:
        counts: a row a task: passed trials and trials of the first side, then of the second.
    """
    import numpy

    observed = abs(float((counts[:, 2] / counts[:, 3] - counts[:, 0] / counts[:, 1]).sum()))
    open_tasks = counts[(counts[:, 0] + counts[:, 2] > 0) & (counts[:, 0] + counts[:, 2] < counts[:, 1] + counts[:, 3])]
    if not len(open_tasks):
        return 1.0
    first, second = open_tasks[:, 1], open_tasks[:, 3]
    passed = open_tasks[:, 0] + open_tasks[:, 2]
    random = numpy.random.default_rng(SEED)
    reached = 0.0
    for begin in range(0, _DRAWS, _CHUNK):
        drawn = random.hypergeometric(
            passed, first + second - passed, second, (min(_CHUNK, _DRAWS - begin), len(passed))
        )
        sums = numpy.abs((drawn / second - (passed - drawn) / first).sum(axis=1))
        reached += 0.5 * float((sums > observed + 1e-9).sum() + (sums >= observed - 1e-9).sum())
    return (1 + reached) / (1 + _DRAWS)


def mcnemar_mid_p(better: int, worse: int) -> float:
    """Two-sided mid-p of McNemar's test (Fagerland, Lydersen and Laake 2013, BMC Med. Res. Methodology 13:91).

    Args:
        better: tasks that only the second side passed.
        worse: tasks that only the first side passed.
    """
    pairs = better + worse
    if not pairs:
        return 1.0
    fewer = min(better, worse)
    at_most: float = sum(comb(pairs, count) for count in range(fewer + 1)) / 2**pairs
    point: float = comb(pairs, fewer) / 2**pairs
    return 1.0 - point / 2 if better == worse else 2 * at_most - point


def holm(p_values: Sequence[float], level: float = 0.05) -> list[tuple[float, float]]:
    """Adjusted p of each hypothesis, and the level at which its own interval is to be taken (Holm 1979, Scandinavian
    J. of Statistics 6:65-70).

    The levels are those of the step-down procedure: the r-th of m hypotheses that is rejected is so at
    level / (m - r + 1), and those that are not rejected have the level at which it stopped. An interval thus excludes
    zero where its hypothesis is rejected, as far as test and interval agree.
    """
    many = len(p_values)
    order = sorted(range(many), key=lambda index: p_values[index])
    found = [(1.0, level)] * many
    highest, stopped = 0.0, None
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (many - rank)))
        own = level / (many - rank)
        if stopped is None and p_values[index] > own:
            stopped = own
        found[index] = highest, own if stopped is None else stopped
    return found
