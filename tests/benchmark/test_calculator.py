"""`calculate` answers as the package's does and can hold nothing for ever."""

from __future__ import annotations

import asyncio
import time

import pytest

from tau2_fleet.benchmark import calculator
from tau2_fleet.benchmark.calculator import (
    CalculationError,
    ToolDeadline,
    calculate,
    calculate_blocking,
    risky_expression,
)
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import ToolCall

HARMLESS = [
    "2**3", "1.05 ** 12", "(-8)**0.5", "9.0**999", "0**-1", "1.1**", "2**-1", "2 * * 3", "(2+3)**2/7", "()**2",
    "...**2", "9" * 4300 + "**1", "9" * 4301 + "**1", "1" * 600, "(" * 300 + "**", "0777**2", " 2**2", "2**2)", "7**77",
    "1(2)**2", "1+" * 400 + "1", "2**2" + " " * 600,
]  # fmt: skip


def in_this_process(expression: str) -> tuple[str, bool]:
    """What the package's tool answers, and whether it is an error."""
    from tau2.domains.retail.tools import RetailTools

    try:
        return RetailTools(None).calculate(expression=expression), False
    except Exception as error:
        return f"Error: {error}", True


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("name", ["retail", "airline"])
def test_the_child_answers_as_the_tool_itself(name: str) -> None:
    domain = load_domain(name)
    environment = domain.environment(domain.tasks()[0])

    async def answers() -> list[tuple[str, bool]]:
        calls = [ToolCall(id="x", name="calculate", arguments={"expression": text}) for text in HARMLESS]
        given = await asyncio.gather(*(environment.respond(call) for call in calls))
        return [(str(answer.content), answer.error) for answer in given]

    assert all(risky_expression({"expression": text}) for text in HARMLESS if "**" in text or len(text) > 500)
    assert asyncio.run(answers()) == [in_this_process(text) for text in HARMLESS]


@pytest.mark.parametrize(
    "arguments",
    [{"expression": "2 + 2"}, {"expression": "2 ** x"}, {"expression": ["2", "**", "2"]}, {"expression": None}, {},
     {"expression": "2**2", "other": 1}],
)  # fmt: skip
def test_no_child_is_needed_for_calls_that_cannot_run_away(arguments: dict[str, object]) -> None:
    assert risky_expression(arguments) is None


@pytest.mark.parametrize("expression", ["9**9**9", "9**99999999999999999999", "(7**7**7)**7 + 1"])
def test_a_runaway_ends_as_a_deadline_while_the_event_loop_goes_on(
    expression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async def run() -> None:
        ticking = asyncio.create_task(tick())
        domain = load_domain("retail")
        call = ToolCall(id="x", name="calculate", arguments={"expression": expression})
        with pytest.raises(ToolDeadline, match=r"^calculate\(.* reached its limit of 2 s of CPU time"):
            await domain.environment(domain.tasks()[0]).respond(call)
        ticking.cancel()

    started = time.monotonic()
    asyncio.run(run())
    assert ticks > 10
    assert time.monotonic() - started < calculator.WALL_LIMIT_S


def test_the_blocking_form_gives_the_same() -> None:
    assert calculate_blocking("3**4") == asyncio.run(calculate("3**4")) == "81.0"
    with pytest.raises(CalculationError, match="invalid syntax"):
        calculate_blocking("3**")


def test_what_brings_down_the_parser_is_answered_too() -> None:
    for expression in ("-" * 1_000_000 + "1", "(" * 100_000, "1+" * 100_000 + "1"):
        with pytest.raises((CalculationError, ToolDeadline)):
            asyncio.run(calculate(expression))
