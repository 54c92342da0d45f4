"""`--format inspect`: a log per run and domain that Inspect reads, and its viewer shows."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections import Counter
from datetime import UTC, datetime
from shlex import quote
from statistics import fmean
from typing import Any, BinaryIO

from tau2_fleet import __version__
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.evaluation.metrics import Result, average_reward, pass_hat
from tau2_fleet.export.export_format import Arguments, Export
from tau2_fleet.export.inspect_samples import SCORE, sample_of, summary_of, usage_of, utc
from tau2_fleet.export.runs import Json, Run
from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.line import encode_line
from tau2_fleet.record.task_texts import TaskTexts
from tau2_fleet.telemetry.secrets import Redactor, record_redactor

_VERSION = 2
"""Of Inspect's log format."""
_LEVEL = 3
"""Of compression: most of the effect for a third of the time."""


class Inspect:
    """A folder with a `.eval` file for each domain of each run."""

    folder = True

    def add_arguments(self, parser: Arguments) -> None:
        return

    def file_name(self, options: argparse.Namespace) -> str:
        return "inspect"

    def write(self, export: Export) -> None:
        samples = 0
        used: set[str] = set()
        for run in export.runs:
            tasks = TaskTexts(run.directory)
            for domain in dict.fromkeys(key.domain for key in run.stored.keys if run.filters.holds_key(key)):
                log = _Log(run, domain, tasks)
                log.be_unlike(used)
                # Records come without keys; in a compressed file there is nothing to find, only something to spoil.
                with replaced(export.path / log.file_name, Redactor()) as file:
                    samples += log.write(file)
                if not log.samples:
                    (export.path / log.file_name).unlink()
        if not samples:
            raise UserError("no simulation is as asked for, or can be read")
        export.notes.append(f"{samples} samples; to look at them: inspect view --log-dir {quote(str(export.target))}")


class _Log:
    """One `.eval` file while it is written: a ZIP archive with a JSON file per sample."""

    def __init__(self, run: Run, domain: str, tasks: TaskTexts) -> None:
        self.run = run
        self.domain = domain
        self.tasks = tasks
        self.samples = 0
        started = utc(run.summary.get("started")) or datetime.fromtimestamp(0, UTC).isoformat()
        self.created = started.split(".")[0].removesuffix("+00:00") + "+00:00"
        self.id = re.sub("[^A-Za-z0-9]", "", f"{run.summary.get('run_id') or run.name}{domain}")
        self._results: list[Result] = []
        self._parts: dict[str, list[float]] = {}
        self._usage: Counter[tuple[str, str, str]] = Counter()
        self._ended: str | None = None

    def be_unlike(self, used: set[str]) -> None:
        """Take another id, and with it another file, than logs before: copies of a run have the same one."""
        first, number = self.id, 1
        while self.id in used:
            number += 1
            self.id = f"{first}{number}"
        used.add(self.id)

    @property
    def file_name(self) -> str:
        """As Inspect names its logs: time, task, id."""
        domain = re.sub(r"[^\w-]", "-", self.domain, flags=re.ASCII)
        return f"{self.created.replace(':', '-').replace('+', '-')}_tau2-{domain}_{self.id}.eval"

    def write(self, file: BinaryIO) -> int:
        """Write the archive; how many samples it has."""
        summaries: list[bytes] = []
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
            for record in self.run.records(lambda key: key.domain == self.domain):
                made = self.run.converted(record, self._sample)
                if made is not None:
                    sample, summary = made
                    archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", encode_line(sample))
                    summaries.append(summary)
                    self._count(record, sample)
            if not self.samples:
                return 0
            start = {"version": _VERSION, "eval": self._spec(), "plan": self._plan()}
            archive.writestr("_journal/start.json", record_redactor.redact_bytes(encode_line(start)))
            archive.writestr("summaries.json", b"[" + b",".join(summaries) + b"]")
            header = {**start, "status": self._status(), "results": self._figures(), "stats": self._stats()}
            archive.writestr("header.json", record_redactor.redact_bytes(encode_line(header)))
        return self.samples

    def _sample(self, record: Json) -> tuple[Json, bytes]:
        """A record's sample, and its encoded summary."""
        task = self.tasks.get(f"{self.domain}/{record['task_id']}")
        sample = sample_of(record, self.run.prompt(record), task, self.run.config.get("max_steps"))
        return sample, encode_line(summary_of(sample)).rstrip()

    def _count(self, record: Json, sample: Json) -> None:
        self.samples += 1
        name = f"{self.domain}/{record['task_id']}"
        self._results.append(Result(name, record["reward"], record["termination_reason"]))
        for part, value in record["sub_rewards"].items():
            self._parts.setdefault(part, []).append(value)
        for model, used in sample["model_usage"].items():
            self._usage.update({("model", model, kind): tokens for kind, tokens in used.items()})
        for role, used in sample["role_usage"].items():
            self._usage.update({("role", role, kind): tokens for kind, tokens in used.items()})
        self._ended = max(filter(None, (self._ended, sample["completed_at"])), default=None)

    def _status(self) -> str:
        status = self.run.summary.get("exit_status")
        return "success" if status in (ExitStatus.FINISHED, ExitStatus.NEGATIVE) else "cancelled"

    def _spec(self) -> Json:
        summary, config = self.run.summary, self.run.config
        agent = _model_config(config.get("agent"), self.run.model("agent"))
        user = _model_config(config.get("user_llm"), self.run.model("user"))
        trials = len({key.trial for key in self.run.stored.keys if key.domain == self.domain})
        ids = list(dict.fromkeys(result.task.partition("/")[2] for result in self._results))
        scaffold = (summary.get("scaffolds") or {}).get("agent") or {}
        return {
            "eval_id": self.id,
            "run_id": str(summary.get("run_id") or self.run.name),
            "created": self.created,
            "task": f"tau2/{self.domain}",
            "task_id": self.id,
            "task_version": self.run.benchmark.name,
            "task_display_name": f"τ²-bench {self.domain}",
            "task_args": {},
            "solver": str(scaffold.get("name") or "llm_agent"),
            "solver_args": scaffold.get("options") or {},
            "tags": [str(config["experiment_name"])] if config.get("experiment_name") else None,
            "dataset": {"name": f"tau2/{self.domain}", "samples": len(ids), "sample_ids": ids, "shuffled": False},
            "model": agent["model"],
            "model_generate_config": agent["config"],
            "model_args": {},
            "model_roles": {"user": user},
            "config": {"epochs": trials, "epochs_reducer": ["mean"]},
            "packages": {name: str(version) for name, version in (summary.get("versions") or {}).items()}
            | {"tau2-fleet": __version__},
            "metadata": {
                "run": self.run.name,
                "domain": self.domain,
                "benchmark": self.run.benchmark.as_dict(),
                "result_digest": summary.get("result_digest"),
                "reference": summary.get("reference"),
                "digests": (summary.get("digests") or {}).get(self.domain),
            },
            "scorers": [{"name": name, "options": {}, "metadata": {}} for name in (SCORE, *self._parts)],
        }

    def _plan(self) -> Json:
        scaffold = (self.run.summary.get("scaffolds") or {}).get("agent") or {}
        step = {"solver": str(scaffold.get("name") or "llm_agent"), "params": scaffold.get("options") or {}}
        return {"name": "plan", "steps": [step], "config": {}}

    def _figures(self) -> Json:
        passed = {f"pass^{k}": estimate.value for k, estimate in pass_hat(self._results).items()}
        scores = [_score(SCORE, self.samples, {"mean": average_reward(self._results).value, **passed})]
        scores += [_score(part, len(values), {"mean": fmean(values)}) for part, values in self._parts.items()]
        return {"total_samples": self.samples, "completed_samples": self.samples, "scores": scores}

    def _stats(self) -> Json:
        usage: dict[str, dict[str, Json]] = {"model": {}, "role": {}}
        for (of, name, kind), tokens in self._usage.items():
            usage[of].setdefault(name, usage_of({}))[kind] = tokens
        return {
            "started_at": self.created,
            "completed_at": self._ended or self.created,
            "model_usage": usage["model"],
            "role_usage": usage["role"],
        }


def _score(name: str, samples: int, metrics: dict[str, float]) -> Json:
    return {
        "name": name,
        "scorer": name,
        "reducer": "mean",
        "scored_samples": samples,
        "unscored_samples": 0,
        "params": {},
        "metrics": {metric: {"name": metric, "value": value, "params": {}} for metric, value in metrics.items()},
    }


def _model_config(settings: Any, name: str | None) -> Json:
    """A role's model as `provider/name`, and its sampling."""
    about = settings if isinstance(settings, dict) else {}
    keys = {"temperature": "temperature", "top_p": "top_p", "max_output_tokens": "max_tokens"}
    config = {ours: about[key] for key, ours in keys.items() if isinstance(about.get(key), int | float)}
    return {"model": f"{about.get('provider') or 'vllm'}/{name or 'unknown'}", "config": config, "args": {}}
