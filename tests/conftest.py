"""What all tests share: Ctrl-C as a terminal has it, an environment without keys, the sum of the differential suite."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tau2_fleet.telemetry.events import EventBus

# Shells start background jobs with SIGINT ignored, nohup its command with SIGHUP, and children inherit that:
# tests would press Ctrl-C and hang up in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Child processes of tests import this package and the tests as they lie in the checkout.
_ROOT = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = f"{_ROOT / 'src'}{os.pathsep}{_ROOT}"

# On a busy machine examples take longer than 0.2 s, which is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "TOGETHER_API_KEY", "NEBIUS_API_KEY", "WANDB_API_KEY", "CKPT_DIR")


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without keys, in a home directory and with a checkout's `.env` that are not there."""
    for name in _KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def event_bus() -> Iterator[EventBus]:
    """The bus of what a test does in its own process."""
    with EventBus().in_use() as bus:
        yield bus


_FIRST = ("run", "attacks", "control", "fleet", "benchmark", "docs")
"""Folders whose files take long; begun late, one would be waited for alone."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The few tests that run alone are found without importing all others."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    if config.option.markexpr == "alone" and is_test and b"mark.alone" not in collection_path.read_bytes():
        return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: workers take one file after the other."""
    here = Path(__file__).parent
    rank = {folder: place for place, folder in enumerate(_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(here).parts[0], len(rank)))


_TALLY = "tests.benchmark.tally"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist hands its part of the sum to the process that prints it."""
    if hasattr(session.config, "workeroutput") and _TALLY in sys.modules:
        session.config.workeroutput["tally"] = sys.modules[_TALLY].TALLY.as_dict()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended."""
    part = getattr(node, "workeroutput", {}).get("tally")
    if part is not None:
        from tests.benchmark.tally import TALLY

        TALLY.add(part)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many trajectories were compared with the benchmark's own evaluator, and how many attacks were held."""
    module = sys.modules.get(_TALLY)
    for line in module.TALLY.lines() if module is not None else []:
        terminalreporter.write_line(line)
    ended = {
        outcome: sum(report.nodeid.startswith("tests/attacks/") for report in terminalreporter.getreports(outcome))
        for outcome in ("passed", "failed", "error")
    }
    if tried := sum(ended.values()):
        terminalreporter.write_line(f"attacks: {tried} tried, {ended['passed']} held")
