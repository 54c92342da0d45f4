"""The report in words: three sentences for the first screen, and a paragraph for a paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tau2_fleet.analysis.cause_shares import CauseShare
from tau2_fleet.evaluation.metrics import Metrics
from tau2_fleet.evaluation.proportions import Estimate
from tau2_fleet.report.figures import Figures
from tau2_fleet.report.run_data import RunData


@dataclass(frozen=True, slots=True)
class SentencePart:
    """A piece of a sentence, perhaps a link within the page."""

    text: str
    href: str = ""


def headline(run: RunData, figures: Figures) -> list[SentencePart]:
    """The score with its interval, what it is of, and what it may be compared with."""
    overall = figures.metrics().get("overall")
    if overall is None:
        return [SentencePart("No simulation is over yet.")]
    trials = counted(round(overall.simulations / overall.tasks, 1), "trial", "g")
    domains = _listed(sorted(figures.results))
    text = (
        f"pass^1 is {overall.pass_hat.get(1) or overall.average_reward!s} on "
        f"{counted(overall.tasks, 'task')} × {trials} of {domains} ({run.benchmark})"
    )
    if run.summary.get("chosen_tasks"):
        text += ", chosen by a file, so that the number says nothing of the whole set"
    if not run.reference:
        return [SentencePart(f"{text}.")]
    count = len(run.departures)
    if not count:
        return [SentencePart(f"{text}; its settings are those of the recipe {run.reference}, with no departure.")]
    return [
        SentencePart(f"{text}; comparable with the recipe {run.reference} except for "),
        SentencePart(counted(count, "setting"), "#departures"),
        SentencePart("."),
    ]


def inventory(run: RunData, figures: Figures) -> list[SentencePart]:
    """What ran, what failed around it, which replies are suspect, and what it took."""
    overall = figures.metrics().get("overall")
    scheduled = run.scheduled
    failures = 0 if overall is None else overall.infrastructure_errors
    ran = (
        f"{figures.total} of {scheduled} simulations are over" if scheduled else f"{figures.total} simulations are over"
    )
    parts = [SentencePart(f"{ran}; ")]
    if failures:
        parts.append(SentencePart(counted(failures, "infrastructure failure"), "#?cause=infrastructure"))
        parts.append(SentencePart(f" {'counts as a failure' if failures == 1 else 'count as failures'}; "))
    else:
        parts.append(SentencePart("none failed for a reason outside the conversation; "))
    if figures.spoiled_replies:
        words = "reply was altered or is" if figures.spoiled_replies == 1 else "replies were altered or are"
        suspect = f"{figures.spoiled_replies} {words} suspect"
        zeros = f", touching {figures.spoiled_zeros} of the simulations with reward 0; "
        parts += [SentencePart(suspect, "#replies"), SentencePart(zeros)]
    else:
        parts.append(SentencePart("no reply was altered or suspect; "))
    cost = "$0.00" if overall is None else overall.cost
    minutes = float(run.summary.get("duration_s") or 0.0) / 60
    time = counted(minutes, "minute") if minutes >= 1 else counted(minutes * 60, "second")
    parts.append(SentencePart(f"it took {cost}{f' and {time}' if minutes else ''}."))
    return parts


def losses(shares: list[CauseShare]) -> list[SentencePart]:
    """What the reward was lost by, each cause a link to its simulations."""
    if not shares:
        return [SentencePart("No reward was lost.")]
    parts = [SentencePart("Reward was lost by ")]
    for index, share in enumerate(shares):
        parts.append(SentencePart(f"{share.cause.words} ({share.share:.0%})", f"#?cause={share.cause}"))
        parts.append(SentencePart("." if index == len(shares) - 1 else ", "))
    return parts


def reviewed(found: dict[str, Any], current: int, total: int) -> list[SentencePart]:
    """The score without the customer's errors, where the run was reviewed.

    Args:
        found: as `review.json` has it; empty where it was not. One of another form says nothing.
        current: simulations whose review is of what they are now.
        total: simulations.
    """
    if not current:
        return []
    try:
        return _reviewed(found, current, total)
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _reviewed(found: dict[str, Any], current: int, total: int) -> list[SentencePart]:
    overall, judge = found["scores"]["overall"], found.get("judge")
    corrected, bound = overall["corrected"], overall["upper_bound"]
    said = "nothing is left" if not (corrected or bound) else f"pass^1 is {Estimate(**(corrected or bound))!s}"
    if bound and not corrected:
        said += " at most (failures alone were reviewed)"
    hindered, helped, others = (int(overall["left_out"][name]) for name in ("hindered", "helped", "without_effect"))
    by = "rules" if judge is None else f"rules and {judge['model']}"
    erred = f"{counted(hindered + helped + others, 'simulation')} in which the customer erred"
    parts = [
        SentencePart(f"Reviewed by {by}: {said} without "),
        SentencePart(erred, "#?fault=customer"),
        SentencePart(f" ({hindered} hindered, {helped} helped, {others} without effect)."),
    ]
    if current < total:
        parts.append(
            SentencePart(f" {total - current} of {total} have no review, or one from before they were scored.")
        )
    return parts


def methods(run: RunData, figures: Figures) -> str:
    """A paragraph that a paper can take over, with every name that a reader needs to repeat the run."""
    overall = figures.metrics().get("overall")
    summary = run.summary
    if overall is None or not summary:
        return "The run goes on; its summary is written at its end."
    versions: dict[str, Any] = summary.get("versions") or {}
    models = ", ".join(
        f"{role} {model.get('model') or model.get('provider')}" for role, model in (summary.get("models") or {}).items()
    )
    trials = overall.simulations / overall.tasks
    commit, digest = str(versions.get("git_commit", "unknown"))[:12], str(summary.get("result_digest", ""))[:12]
    return (
        f"We ran {counted(overall.tasks, 'task')} of τ²-bench ({_listed(sorted(figures.results))}; {run.benchmark}), "
        f"{counted(trials, 'time', 'g')} each, with tau2-fleet (commit {commit}, result digest {digest}). "
        f"Models: {models}. The estimand is pass^1, the expected success of one attempt at a task like these; its 95% "
        "interval is Wilson's, for as many trials as those of a task are worth together (Korn and Graubard "
        "1998). Simulations that ended for an infrastructure reason "
        f"({overall.infrastructure_errors}) count as failures."
    )


def counted(number: float, thing: str, form: str = ".0f") -> str:
    """`1 task`, `2 tasks`; `form` is the number's."""
    told = format(number, form)
    return f"{told} {thing}{'' if told == '1' else 's'}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def metrics_table(metrics: dict[str, Metrics]) -> list[dict[str, str]]:
    """Rows for the table of domains: name, simulations, reward, every pass^k, failures, cost, time."""
    rows = []
    for name, one in metrics.items():
        if name == "overall" and len(metrics) == 2:
            continue
        passes = {f"pass^{k}": str(estimate) for k, estimate in one.pass_hat.items()}
        rows.append(
            {
                "domain": name,
                "tasks": str(one.tasks),
                "simulations": str(one.simulations),
                "infrastructure": str(one.infrastructure_errors),
                "reward": str(one.average_reward),
                **passes,
                "cost": one.cost,
                "mean time": f"{one.duration_s:,.1f} s",
            }
        )
    return rows
