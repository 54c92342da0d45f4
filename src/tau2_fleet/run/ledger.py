"""Who has drawn how much of `limits.max_cost_usd`: a small file that jobs of a sweep, and processes of a run, share.

`money.py` keeps one open for each. Money is drawn in slices, so that the file is rarely touched.
"""

from __future__ import annotations

import fcntl
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tau2_fleet.record.atomic import write_json
from tau2_fleet.record.line import DamagedRecord, read_line
from tau2_fleet.record.lock import LOCK_FILE, is_locked
from tau2_fleet.record.reading import RECORD_FILE, read_object
from tau2_fleet.regular import lines_of, open_file

LEDGER_FILE = ".spending.json"
_LOCK_FILE = ".spending.lock"
_SLICES = 50
"""Into how many parts a limit is drawn: what a job that is killed may have drawn and not spent is one of them."""

_Json = dict[str, Any]


def spent_usd(record: Path) -> float:
    """What stands in a record, simulations that were run again included."""
    try:
        with open_file(record) as file:
            return sum(map(_cost, lines_of(file)))
    except OSError:
        return 0.0


def _cost(line: bytes) -> float:
    try:
        return sum(read_line(line).cost_by_role.values())
    except DamagedRecord:
        return 0.0


class Ledger:
    """The account of one run, or of one of its processes (`part`), among all others in the same file."""

    def __init__(self, run_dir: Path, limit_usd: float, spent_usd: float, *, in_sweep: bool, part: int = 0) -> None:
        """Open the account.

        Args:
            spent_usd: by this account's earlier attempts, as far as the record tells.
            in_sweep: the limit is that of all jobs beside this one.
            part: of a process that plays for the run; 0: the run itself.
        """
        self.directory = run_dir.resolve().parent if in_sweep else run_dir.resolve()
        self.limit_usd = limit_usd
        self._run = run_dir.resolve().name
        self._name = f"{self._run}/{part}" if part else self._run
        with self._accounts() as accounts:
            if not part:
                for name in [name for name in accounts if _job(name) == self._run and name != self._run]:
                    del accounts[name]
                if in_sweep:
                    self._look_at_others(accounts)
            before = accounts.get(self._name, {})
            known = 0.0 if before.get("open") else _number(before.get("drawn_usd"))
            self.drawn_usd = max(spent_usd, known)
            """By this account, earlier attempts included."""
            refused_usd = _number(before.get("refused_usd"))
            accounts[self._name] = {"drawn_usd": self.drawn_usd, "open": True, "refused_usd": refused_usd}

    def draw(self, usd: float) -> float:
        """See `Pot.draw`."""
        with self._accounts() as accounts:
            left_usd = self.limit_usd - sum(_number(one.get("drawn_usd")) for one in accounts.values())
            own = accounts.setdefault(self._name, {"open": True})
            if left_usd < usd:
                return 0.0
            slice_usd = min(left_usd, max(usd, self.limit_usd / _SLICES))
            self.drawn_usd += slice_usd
            own["drawn_usd"] = self.drawn_usd
            return slice_usd

    def refused(self, usd: float) -> None:
        """See `Pot.refused`: no job need begin with less."""
        with self._accounts() as accounts:
            accounts.setdefault(self._name, {"open": True})["refused_usd"] = usd

    def hold(self, usd: float) -> None:
        """Say what this run has spent and will need for the simulations that it has begun."""
        with self._accounts() as accounts:
            accounts.setdefault(self._name, {"open": True})["held_usd"] = usd

    def others(self) -> tuple[float, float]:
        """What other jobs have drawn or hold, and the least for which a request was refused (0: none was)."""
        with self._accounts() as accounts:
            self._look_at_others(accounts)
            taken = (
                max(_number(one.get("drawn_usd")), _number(one.get("held_usd")) if one.get("open") else 0.0)
                for name, one in accounts.items()
                if _job(name) != self._run
            )
            return sum(taken), _least_refused(accounts.values())

    def close(self, spent_usd: float) -> None:
        """Give back what was not spent; the processes of the run are over."""
        with self._accounts() as accounts:
            own = [accounts.pop(name) for name in list(accounts) if _job(name) == self._run]
            accounts[self._run] = {"drawn_usd": spent_usd, "refused_usd": _least_refused(own)}

    def _look_at_others(self, accounts: dict[str, _Json]) -> None:
        """Take what stands in the record of jobs that keep no account, or were killed and do so no longer."""
        for path in self.directory.glob(f"*/{RECORD_FILE}"):
            name = path.parent.name
            own = accounts.get(name)
            if name != self._run and (own is None or (own.get("open") and not is_locked(path.with_name(LOCK_FILE)))):
                accounts[name] = {"drawn_usd": spent_usd(path)}

    @contextmanager
    def _accounts(self) -> Iterator[dict[str, _Json]]:
        """All accounts by name, read and written while no other process does."""
        with (self.directory / _LOCK_FILE).open("ab") as lock:
            with suppress(OSError):  # a file system without locks: one of two draws in the same instant may be lost
                fcntl.flock(lock, fcntl.LOCK_EX)
            found = read_object(self.directory / LEDGER_FILE)
            accounts = {name: dict(one) for name, one in found.items() if isinstance(one, dict)}
            before = {name: dict(one) for name, one in accounts.items()}
            yield accounts
            if accounts != before:
                write_json(self.directory / LEDGER_FILE, accounts)


def _least_refused(accounts: Iterable[_Json]) -> float:
    return min((usd for one in accounts if (usd := _number(one.get("refused_usd")))), default=0.0)


def _job(account: str) -> str:
    return account.partition("/")[0]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
