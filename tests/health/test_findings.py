"""What checks come to: a finding whatever they raise, a last line that counts them, GPUs and disks with what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.health import machine, servers
from tau2_fleet.health.finding import Finding, FindingState, note, ok, problem, warning
from tau2_fleet.health.findings import FindingsReport


def raises(error: Exception) -> Finding:
    raise error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("no such host"), "no such host"),
        (ModuleNotFoundError("x", name="torch"), "the package torch is not installed"),
        (ValueError("odd"), "the check itself failed: ValueError: odd"),
    ],
)
def test_what_a_check_raises_is_its_finding(error: Exception, text: str) -> None:
    async def waits() -> Finding:
        raise error

    report = FindingsReport()
    report.run("one", lambda: raises(error))
    asyncio.run(report.run_async("two", waits))
    assert report.value("three", lambda: raises(error)) is None
    assert [(found.state, found.subject, found.text) for found in report.findings] == [
        (FindingState.problem, subject, text) for subject in ("one", "two", "three")
    ]


@pytest.mark.parametrize(
    ("findings", "status", "last"),
    [
        ([ok("a", "b"), note("a", "b")], ExitStatus.FINISHED, "this configuration can run"),
        ([warning("a", "b", "c")], ExitStatus.FINISHED, "this configuration can run, with 1 warning"),
        ([warning("a", "b", "c")] * 2, ExitStatus.FINISHED, "this configuration can run, with 2 warnings"),
        (
            [problem("a", "b"), ok("a", "b"), warning("a", "b", "c")],
            ExitStatus.FAILED,
            "this configuration could not run: 1 of 3 checks failed",
        ),
    ],
)
def test_the_last_line_says_whether_a_run_could_go(
    findings: list[Finding], status: ExitStatus, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = FindingsReport()
    report.run("all", lambda: findings)
    assert report.conclude() == status
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == last
    assert sum("→ c" in line for line in shown) == sum(finding.advice is not None for finding in findings)


def gpu(index: int, used_gib: int) -> SimpleNamespace:
    return SimpleNamespace(index=index, name="H100", memory_total=80 * 2**30, memory_used=used_gib * 2**30)


@pytest.mark.parametrize(
    ("used", "needed", "state", "part"),
    [
        ([], True, FindingState.warning, "none to be seen"),
        ([], False, FindingState.note, "this configuration needs none"),
        ([0, 8], True, FindingState.ok, "2 × H100, at least 72 GiB free each, driver 570"),
        ([0, 9], True, FindingState.warning, "in use: 1"),
        ([0, 9], False, FindingState.note, "this configuration needs none"),
    ],
)
def test_gpus_that_are_in_use_are_named_where_they_are_needed(
    used: list[int], needed: bool, state: FindingState, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "gpus", lambda: [gpu(index, gib) for index, gib in enumerate(used)])
    monkeypatch.setattr(servers, "_driver", lambda: "570")
    found = servers.check_gpus(needed)
    assert found.state is state
    assert part in found.text


@pytest.mark.parametrize(
    ("free_mib", "state"),
    [(255, FindingState.problem), (256, FindingState.warning), (5119, FindingState.warning), (5120, FindingState.ok)],
)
def test_a_disk_that_is_nearly_full_is_a_problem_and_one_with_little_room_a_warning(
    free_mib: int, state: FindingState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free_mib * 2**20))
    (found,) = machine.check_disk({"runs": tmp_path / "a", "temporary files": tmp_path})
    assert found.state is state
    assert found.text.endswith(f"GiB free for runs ({tmp_path / 'a'}), temporary files ({tmp_path})")


def test_an_old_interpreter_and_no_checkout_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.check_python().state is FindingState.ok
    monkeypatch.setattr(machine, "_OLDEST_PYTHON", (9, 0))
    assert machine.check_python().state is FindingState.problem
    assert machine.check_packages(None).state is FindingState.note
    assert "cannot be read: No such file" in machine.check_packages(tmp_path).text
    (found,) = machine.describe_data({"mock": {"db.json": "0123456789abcdef"}}, {"mock": "/data"})
    assert (found.state, found.text) == (FindingState.note, "mock reads /data: db.json 0123456789ab")


@pytest.mark.parametrize(
    ("ports", "taken", "state", "told"),
    [
        ([1900], (), FindingState.ok, "1900 on 127.0.0.1 free"),
        ([1900, 1901, 1902], (), FindingState.ok, "1900 to 1902 on 127.0.0.1 free"),
        ([1900, 1901, 1902], (1901, 1902), FindingState.problem, "1901 is held by process 7 (it)"),
    ],
)
def test_the_first_port_that_is_taken_is_named_with_its_holder(
    ports: list[int], taken: tuple[int, ...], state: FindingState, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "is_free", lambda _, port: port not in taken)
    monkeypatch.setattr(servers, "holder", lambda _: "process 7 (it)")
    found = servers._ports("127.0.0.1", ports)
    assert (found.state, found.text) == (state, told)
