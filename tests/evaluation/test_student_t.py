"""Student's t without scipy."""

from __future__ import annotations

import pytest
from scipy import stats

from tau2_fleet.evaluation.student_t import two_sided


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_quantiles_of_t_are_those_of_scipy(confidence: float) -> None:
    for freedom in (1, 2, 3, 4, 7, 24, 49.5, 113, 200, 201, 20_000):
        assert two_sided(confidence, freedom) == pytest.approx(stats.t.ppf((1 + confidence) / 2, freedom), rel=1e-9)
