"""Quantiles of Student's t without scipy, which takes a quarter of a second to import: `proportions` and `forecasting`.

Formulas are those of Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", section 26.7.
"""

from __future__ import annotations

from math import atan, cos, exp, lgamma, pi, sin, sqrt
from statistics import NormalDist

_MANY = 200
"""Degrees of freedom beyond which the expansion is exact to 2e-12."""
_ROUNDS = 20


def expansion(z: float, freedom: float) -> float:
    """The quantile that belongs to the normal one `z` (26.7.5); the more degrees of freedom, the nearer."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / freedom + second / freedom**2 + third / freedom**3 + fourth / freedom**4


def two_sided(confidence: float, freedom: float) -> float:
    """Between minus this value and itself lies such a share of the distribution.

    Args:
        confidence: 0.95, say; below 1.
        freedom: degrees of freedom, above 0; scipy is asked about fractions of one.
    """
    if not float(freedom).is_integer():
        from scipy.special import stdtrit

        return float(stdtrit(freedom, (1 + confidence) / 2))
    whole = int(freedom)
    t = expansion(NormalDist().inv_cdf((1 + confidence) / 2), whole)
    if whole > _MANY:
        return t
    height = exp(lgamma((whole + 1) / 2) - lgamma(whole / 2)) / sqrt(whole * pi)
    for _ in range(_ROUNDS):  # Newton's; from below, where the expansion begins, it comes nearer with every round
        density = height * (1 + t * t / whole) ** (-(whole + 1) / 2)
        step = (_share_within(t, whole) - confidence) / (2 * density)
        t -= step
        if abs(step) <= 1e-15 * t:
            break
    return t


def _share_within(t: float, freedom: int) -> float:
    """The share of the distribution between -t and t (26.7.3 for odd degrees of freedom, 26.7.4 for even ones)."""
    angle, odd = atan(t / sqrt(freedom)), freedom % 2
    term = cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for power in range(2 + odd, freedom - 1, 2):
        term *= cos(angle) ** 2 * (power - 1) / power
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
