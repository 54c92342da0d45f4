"""Prints findings as they come and keeps count; the doctor's exit status is its conclusion."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from rich.text import Text

from tau2_fleet.display.console import neutralise, out
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.health.finding import Finding, FindingState, problem
from tau2_fleet.invocation import install_hint
from tau2_fleet.telemetry.secrets import redact

Value = TypeVar("Value")
Checked = Finding | Iterable[Finding]

_STYLES = {
    FindingState.ok: "green",
    FindingState.note: "dim",
    FindingState.warning: "yellow",
    FindingState.problem: "bold red",
}
_SUBJECT_WIDTH = 14


class FindingsReport:
    """The lines of one examination."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def add(self, finding: Finding) -> None:
        """Print a finding."""
        self.findings.append(finding)
        margin = f"\n{'':<{6 + _SUBJECT_WIDTH}}"
        texts = [_clean(text) for text in finding.text.splitlines() if text.strip()]
        line = Text.assemble(
            (f"{finding.state:<5} ", _STYLES[finding.state]),
            f"{finding.subject:<{_SUBJECT_WIDTH}}",
            (margin.join(texts), "dim" if finding.state is FindingState.note else ""),
        )
        if finding.advice is not None:
            line.append(f"{margin}→ {_clean(finding.advice)}", "bold")
        out.print(line)

    def run(self, subject: str, check: Callable[[], Checked]) -> None:
        """Do a check; whatever it raises is a finding too."""
        checked = self.value(subject, lambda: _listed(check()))
        for finding in checked or ():
            self.add(finding)

    async def run_async(self, subject: str, check: Callable[[], Awaitable[Checked]]) -> None:
        """The same for a check that waits."""
        try:
            for finding in _listed(await check()):
                self.add(finding)
        except Exception as error:
            self.add(_as_finding(subject, error))

    def value(self, subject: str, make: Callable[[], Value]) -> Value | None:
        """What `make` returns; None, and a finding, when it raises."""
        try:
            return make()
        except Exception as error:
            self.add(_as_finding(subject, error))
            return None

    def conclude(self) -> int:
        """Print the last line; returns the exit status."""
        problems = sum(finding.state is FindingState.problem for finding in self.findings)
        warnings = sum(finding.state is FindingState.warning for finding in self.findings)
        if problems:
            out.print(
                Text(f"\nthis configuration could not run: {problems} of {len(self.findings)} checks failed", "red")
            )
            return ExitStatus.FAILED
        more = f", with {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
        out.print(Text(f"\nthis configuration can run{more}", "green"))
        return ExitStatus.FINISHED


def _listed(checked: Checked) -> list[Finding]:
    return [checked] if isinstance(checked, Finding) else list(checked)


def _as_finding(subject: str, error: Exception) -> Finding:
    if isinstance(error, UserError):
        return problem(subject, str(error))
    if isinstance(error, ModuleNotFoundError):
        return problem(subject, f"the package {error.name} is not installed", install_hint())
    return problem(subject, f"the check itself failed: {type(error).__name__}: {error}")


def _clean(text: str) -> str:
    """One line, nothing that steers the terminal, no secret."""
    return redact(neutralise(" ".join(text.split())))
