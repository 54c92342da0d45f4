"""The report's plots: each figure at its place, none beyond the edge; and the sums that they draw."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

from tau2_fleet.analysis.cause_shares import CauseShare
from tau2_fleet.analysis.causes import Cause
from tau2_fleet.evaluation.metrics import Result, measure
from tau2_fleet.report import charts
from tau2_fleet.report.figures import Figures


def numbers(drawn: str, name: str, of: str) -> list[float]:
    """An attribute of all shapes of a class, in their order."""
    shapes = [shape for shape in re.findall(r"<[a-z]+ [^>]*>", drawn) if f'class="{of}' in shape]
    return [float(found) for shape in shapes for found in re.findall(rf'\s{name}="([-\d.]+)"', shape)]


def test_a_domain_is_a_point_within_its_interval_on_an_axis_from_0_to_1() -> None:
    results = [Result(str(task), float(task % 2), "user_stop") for task in range(8)]
    metrics = measure(results)
    assert metrics is not None
    one = charts.domains({"retail": metrics, "overall": metrics})
    assert numbers(one, "x1", "grid") == [178.0, 233.5, 289.0, 344.5, 400.0]
    assert numbers(one, "cx", "point") == [289.0], "one domain needs no row for all"
    (low,), (high,) = numbers(one, "x1", "interval"), numbers(one, "x2", "interval")
    estimate = metrics.pass_hat[1]
    assert estimate.low is not None
    assert estimate.high is not None
    assert (low, high) == (round(178 + 222 * estimate.low, 1), round(178 + 222 * estimate.high, 1))
    assert numbers(one, "cy", "point") == numbers(one, "y1", "interval") == numbers(one, "y2", "interval") == [21.0]
    assert numbers(one, "y", "value") == [25.0]
    assert 'viewBox="0 0 460 60"' in one
    assert ">0.500<" in one
    two = charts.domains({"airline": metrics, "retail": metrics, "overall": metrics})
    assert numbers(two, "cy", "point") == [21.0, 47.0, 73.0]
    assert numbers(two, "y2", "grid") == [90.0] * 5
    assert [charts._x(value) for value in (-1.0, 2.0)] == ["178.0", "400.0"]


def test_a_cause_is_a_bar_as_long_as_its_share() -> None:
    shares = [
        CauseShare(Cause.ACTION, 3, 3.0, 0.75, "x", ()),
        CauseShare(Cause.LIMIT, 1, 1.0, 0.25, "y", ()),
    ]
    drawn = charts.causes(shares)
    assert numbers(drawn, "width", "bar") == [136.5, 45.5]
    assert numbers(drawn, "y", "bar") == [10.0, 36.0]
    assert numbers(drawn, "x", "value") == [320.5, 229.5]
    assert numbers(drawn, "y", "value") == [23.0, 49.0]
    assert numbers(drawn, "y", "label") == [23.0, 49.0]
    assert re.findall(r"\d+% \(\d+\)", drawn) == ["75% (3)", "25% (1)"]
    assert 'viewBox="0 0 460 64"' in drawn


def test_lengths_stand_above_the_axis_where_passed_and_below_it_where_failed() -> None:
    figures = Figures()
    figures.lengths[True].update({0: 1, 1: 1, 47: 4})
    figures.lengths[False].update({10: 2})
    drawn = charts.lengths(figures)
    assert numbers(drawn, "x", "passed") == [50.0, round(50 + 23 * 400 / 24, 1)], "two messages a bar: 0 and 1, 46, 47"
    assert numbers(drawn, "y", "passed") == [47.0, 14.0]
    assert numbers(drawn, "height", "passed") == [33.0, 66.0]
    assert numbers(drawn, "x", "failed") == [round(50 + 5 * 400 / 24, 1)]
    assert (numbers(drawn, "y", "failed"), numbers(drawn, "height", "failed")) == ([80.0], [33.0])
    assert numbers(drawn, "width", "passed") == [round(400 / 24 - 1, 1)] * 2
    assert "<title>46 to 47 messages: 4 passed</title>" in drawn
    assert re.findall(r'x="(\d+)" y="164" text-anchor="(\w+)">(\d+)<', drawn) == [
        ("50", "start", "0"), ("250", "middle", "24"), ("450", "end", "48"),
    ]  # fmt: skip
    assert 'class="passed"' not in charts.lengths(Figures())


def test_where_the_time_went_fills_one_bar() -> None:
    figures = Figures(seconds=Counter({"agent": 30, "customer": 10}))
    drawn = charts.time_split(figures)
    assert re.findall(r'x="([\d.]+)" y="8" width="([\d.]+)"', drawn) == [("10.0", "330.0"), ("340.0", "110.0")]
    assert re.findall(r'x="(\d+)" y="46"', drawn) == ["12", "124"]
    assert re.findall(r'x="(\d+)" y="(?:55|70)">([^<]+)<', drawn) == [
        ("26", "agent"), ("26", "75%"), ("138", "customer"), ("138", "25%"),
    ]  # fmt: skip
    assert "<title>agent: 30 s</title>" in drawn
    assert "0%" in charts.time_split(Figures(seconds=Counter({"agent": 0})))


def a_row(**fields: Any) -> Any:
    about = {
        "domain": "retail", "result": "result", "agent_s": 3.0, "user_s": 2.0, "expert_s": 1.0, "duration_s": 10.0,
        "reward": 0.0, "messages": 7, "cause": Cause.ACTION, "detail": "x", "termination_reason": "user_stop",
        "replies": "",
    }  # fmt: skip
    return SimpleNamespace(**{**about, **fields})


def test_the_figures_are_sums_over_the_simulations() -> None:
    figures = Figures()
    figures.add(a_row(replies="agent.cut=2 user.empty=1 agent.odd=5"), "retail/1/0")
    figures.add(a_row(reward=1.0, cause=None, duration_s=4.0, replies="agent.cut=1"), "retail/2/0")
    figures.add(a_row(domain="mock", cause=Cause.INFRASTRUCTURE, detail=None, messages=9), "mock/1/0")
    figures.add(a_row(domain="mock", cause=Cause.INFRASTRUCTURE, detail="no server", messages=9), "mock/2/0")
    assert (figures.total, list(figures.results)) == (4, ["retail", "mock"])
    assert figures.seconds == {"agent": 12.0, "customer": 8.0, "experts": 4.0, "elsewhere": 12.0}
    assert figures.lengths == {True: {7: 1}, False: {7: 1, 9: 2}}
    assert figures.conditions == {"agent.cut": 3, "user.empty": 1, "agent.odd": 5}
    assert (figures.spoiled_replies, figures.spoiled_zeros) == (4, 1)
    assert figures.infrastructure == {"user_stop": 1, "no server": 1}
    assert {share.cause: share.simulations for share in figures.causes.shares()} == {
        Cause.INFRASTRUCTURE: 2, Cause.ACTION: 1,
    }  # fmt: skip
