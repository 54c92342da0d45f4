"""`--format leaderboard`: a submission to the benchmark's leaderboard, in the form of the installed package."""

from __future__ import annotations

import argparse
import re
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from tau2_fleet import __version__
from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.metrics import Result, pass_hat
from tau2_fleet.export.export_format import Arguments, Export, Refused
from tau2_fleet.export.qualification import DOMAINS, TRIALS, disqualifications
from tau2_fleet.export.runs import Json, Run
from tau2_fleet.record.atomic import write_json
from tau2_fleet.record.results import as_simulation_run
from tau2_fleet.record.results_file import Results, read_results

SUBMISSION = "submission.json"
TRAJECTORIES = "trajectories"
MANIFEST = "manifest.json"


class Leaderboard:
    """A folder with `submission.json`, `manifest.json` and a trimmed results file per domain in `trajectories/`."""

    folder = True

    def add_arguments(self, parser: Arguments) -> None:
        parser.add_argument("--organization", metavar="NAME", help="who made the model (needed)")
        parser.add_argument("--email", metavar="ADDRESS", help="whom to ask about the submission (needed)")
        parser.add_argument("--model-name", metavar="NAME", help="what to call the model (default: as the run does)")
        parser.add_argument("--contact", metavar="NAME", help="the name that belongs to the address")
        parser.add_argument("--github", metavar="NAME", help="a user name on GitHub")
        parser.add_argument("--notes", metavar="TEXT", help="about how the evaluation was made")
        parser.add_argument("--new", action="store_true", help="mark the model as new")

    def file_name(self, options: argparse.Namespace) -> str:
        return "leaderboard"

    def write(self, export: Export) -> None:
        options = export.options
        if options.task or options.min_reward is not None or options.max_reward is not None:
            raise Refused(
                "a submission has all tasks of a domain: --task, --min-reward and --max-reward leave some out"
            )
        if found := [*disqualifications([*export.runs])]:
            raise Refused(*found)
        if not options.organization or not options.email:
            raise UserError("--organization and --email are needed: the benchmark takes no submission without")
        files = [
            (run, read_results(run.directory / f"{domain}.json"))
            for run in export.runs
            for domain in DOMAINS
            if any(key.domain == domain and run.filters.holds_key(key) for key in run.stored.keys)
        ]
        agent, user = _the_same([results for _, results in files])
        name = options.model_name or agent
        if name is None:
            raise UserError("--model-name is needed: the run does not say what its model is called")
        folder = export.path / TRAJECTORIES
        folder.mkdir()
        results = {}
        for run, head in files:
            trials = run.config["num_trials"]
            file = f"{_slug(name)}_{head.domain}_default_{_slug(user)}_{trials}trials.json"
            results[head.domain] = _write_domain(run, head, folder / file)
        today = date.today().isoformat()
        submission: Json = {
            "model_name": name,
            "organization": options.organization,
            "submission_date": today,
            "contact_info": _given(email=options.email, name=options.contact, github=options.github),
            "results": results,
            "is_new": options.new,
            "methodology": _given(
                evaluation_date=_day_of(export.runs[0]),
                tau2_bench_version=_version(export.runs[0]),
                user_simulator=user,
                notes=options.notes or f"Run with tau2-fleet {__version__}: {trials} trials of every base task.",
            ),
        }
        entry = f"{_slug(name)}_{_slug(options.organization)}_{today}"
        write_json(export.path / SUBMISSION, submission)
        write_json(export.path / MANIFEST, {"submissions": [entry]})
        export.notes += [
            *(
                f"{domain}: " + ", ".join(f"pass^{k} {figures[f'pass_{k}']:.1f}%" for k in range(1, TRIALS + 1))
                for domain, figures in results.items()
            ),
            f"In the benchmark's repository the folder is called {entry}; {MANIFEST} has the line for its list.",
        ]
        if missing := [domain for domain in DOMAINS if domain not in results]:
            export.notes.append(f"{', '.join(missing)} not in it: the leaderboard shows no overall figure then")


def _the_same(files: list[Results]) -> tuple[str | None, str]:
    """Names of the models of agent and user, which must be the same in all files, their arguments too."""
    told = [
        [results.head["info"][side].get(key) for side in ("agent_info", "user_info") for key in ("llm", "llm_args")]
        for results in files
    ]
    if any(one != told[0] for one in told):
        raise Refused("agent and user must be the same in all domains, and so must what they are sent; these differ")
    agent, _, user, _ = told[0]
    return agent, str(user)


def _write_domain(run: Run, head: Results, path: Path) -> dict[str, float]:
    """A domain's file, written from the record, without what providers sent beside messages; its figures."""
    outcomes: list[Result] = []
    costs: list[float] = []
    with head.writer(path) as write:
        for record in run.records(lambda key: key.domain == head.domain):
            simulation = as_simulation_run(record)
            simulation["messages"] = [_trimmed(message) for message in simulation["messages"]]
            write(simulation)
            outcomes.append(Result(record["task_id"], record["reward"], record["termination_reason"]))
            costs.append(simulation["agent_cost"])
    figures = pass_hat(outcomes)
    return {f"pass_{k}": 100 * figures[k].value for k in range(1, TRIALS + 1)} | {"cost": fmean(costs)}


def _trimmed(message: Json) -> Json:
    return {name: part for name, part in message.items() if name != "raw_data"}


def _given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value}


def _slug(name: str) -> str:
    """As the benchmark's repository wants names: lower case, without a path."""
    return re.sub(r"[^a-z0-9._]+", "-", name.rstrip("/").rpartition("/")[2].lower()).strip("-") or "unnamed"


def _day_of(run: Run) -> str | None:
    started = run.summary.get("started")
    return started[:10] if isinstance(started, str) else None


def _version(run: Run) -> str:
    benchmark = run.benchmark
    return " ".join(filter(None, (benchmark.name, benchmark.code.package, benchmark.code.version)))
