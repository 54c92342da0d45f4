"""One attempt at a run: what it begins with and what it says of itself; `experiment.py` begins it.

A run that is resumed has several. Each takes from the plan what the record does not hold yet.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tau2_fleet.batch.lengths import ExpectedLengths, LearnedLengths
from tau2_fleet.batch.run_end import Limits
from tau2_fleet.batch.schedule import Schedule
from tau2_fleet.batch.settings import Order
from tau2_fleet.config import Config
from tau2_fleet.display.console import neutralise
from tau2_fleet.record.store import Store
from tau2_fleet.run.in_flight import RunConcurrency
from tau2_fleet.run.job_context import JobContext
from tau2_fleet.run.plan import RunPlan
from tau2_fleet.telemetry.lines import head
from tau2_fleet.telemetry.logs import Logs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What all that happens in one attempt may know."""

    plan: RunPlan
    context: JobContext
    store: Store
    logs: Logs
    number: int
    """How many attempts at this run came before."""
    schedule: Schedule
    """What is left to run, in the order in which it begins."""
    learned: LearnedLengths
    """How long simulations of this model were; grows with those that end."""
    lengths: ExpectedLengths
    in_flight: RunConcurrency
    limits: Limits
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))
    started: datetime = field(default_factory=lambda: datetime.now())

    @classmethod
    def begin(cls, plan: RunPlan, context: JobContext, store: Store, logs: Logs) -> Attempt:
        """The next attempt at the run in the context's directory; its clock starts now."""
        config = plan.config
        schedule = plan.schedule.without(store.finished)
        learned = LearnedLengths(config.agent.model or config.server.kind_name)
        lengths = learned.of(schedule.tasks)
        if config.schedule is Order.longest:
            schedule = schedule.longest_first(lengths.by_task)
        return cls(
            plan,
            context,
            store,
            logs,
            number=sum(1 for path in context.run_dir.glob(".hydra/attempt-*") if path.is_dir()),
            schedule=schedule,
            learned=learned,
            lengths=lengths,
            in_flight=RunConcurrency(config, schedule, lengths),
            limits=Limits(config.limits.run_timeout_s, config.limits.grace_s),
        )

    @property
    def config(self) -> Config:
        return self.plan.config

    @property
    def run_dir(self) -> Path:
        return self.context.run_dir

    @property
    def in_sweep(self) -> bool:
        return self.context.sweep is not None

    def first_line(self) -> str:
        """What an attempt begins with in `run.log`, at whatever level; the servers' logs name the process, too."""
        words = " ".join(self.context.overrides)
        text = f"attempt {self.number} begins: run id {self.run_id}, process {os.getpid()}, {words}"
        return f"{head('INFO', time.time(), None)} {neutralise(text)}"

    def warn(self) -> None:
        """Log what of the configuration, or of the record, will not be as somebody may expect."""
        left_out = self.plan.selection.left_out
        if left_out:
            log.warning(
                "agent.mode=%s cannot play %d of the chosen tasks; they are left out (summary.json lists them)",
                self.config.agent.mode,
                len(left_out),
            )
        self.in_flight.warn()
        if self.config.limits.max_cost_usd is not None and self.plan.scaffolds.agent.may_ask_elsewhere:
            log.warning(
                "limits.max_cost_usd=%g holds for the models that this run asks; of what the agent asks elsewhere "
                "it knows no more than is reported",
                self.config.limits.max_cost_usd,
            )
        if self.store.damage.count:
            log.warning("the record has %s; what they held runs again", self.store.damage)

    def about(self, by_hand: Sequence[str]) -> dict[str, Any]:
        """What `summary.json` begins with.

        Args:
            by_hand: what `ctl` changed on the way.
        """
        return {
            "run_id": self.run_id,
            "attempt": self.number,
            "started": self.started.isoformat(),
            "duration_s": time.monotonic() - self.limits.began_s,
            "overrides": self.context.overrides,
            "servers": self.in_flight.load.as_dict(),
            "by_hand": list(by_hand),
        }
