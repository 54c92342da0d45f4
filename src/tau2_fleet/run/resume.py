"""`resume=DIR`: how the command line of the first attempt is brought back, and whether this one may go on with it.

`jobs.py` brings it back and asks about the keys, `experiment.py` and the doctor about the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from tau2_fleet.config.command_line import for_hydra
from tau2_fleet.config.compare import differing_keys
from tau2_fleet.config.lifetimes import known_lifetimes
from tau2_fleet.config.models import model_settings
from tau2_fleet.config.quoting import quoted
from tau2_fleet.config.schema import Config
from tau2_fleet.errors import UserError
from tau2_fleet.llm.lifetime import model_ends
from tau2_fleet.record.atomic import write_json, write_text
from tau2_fleet.record.reading import RECORD_FILE, read_object
from tau2_fleet.record.summary import read_summary
from tau2_fleet.run.directory import COMPOSITION_DIR, TASK_IDS_FILE, load_saved, saved_overrides

if TYPE_CHECKING:
    from tau2_fleet.run.plan import RunPlan

_NOT_TAKEN_OVER = ("resume", "resume_force")
_SEARCH_PATH = "hydra.searchpath"
_FOUND = ("agent.model", _SEARCH_PATH)
"""What the first job of a sweep found outside its own arguments."""
_SHOWN = 8
_SWEEP_FILE = Path(COMPOSITION_DIR, "sweep.yaml")
DIGESTS_FILE = Path(COMPOSITION_DIR, "digests.json")


def resumed_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments for Hydra: with `resume=DIR` among them, DIR's own come first and all is written into DIR.

    Raises:
        UserError: DIR is neither a run nor a sweep of this program.
    """
    found = [argument for argument in arguments if _key(argument) == "resume"]
    text = _unquoted(found[-1].partition("=")[2]) if found else "null"
    if text == "null":
        return list(arguments)
    folder = Path(text).expanduser()
    if (folder / _SWEEP_FILE).is_file():
        saved = saved_overrides(folder / _SWEEP_FILE)
        place = ["--multirun", f"hydra.sweep.dir={quoted(str(folder.absolute()))}"]
    elif (folder / COMPOSITION_DIR / "overrides.yaml").is_file():
        saved = saved_overrides(folder / COMPOSITION_DIR / "overrides.yaml")
        place = [f"hydra.run.dir={quoted(str(folder.absolute()))}"]
    else:
        what = "there is no such directory" if not folder.is_dir() else "neither a run's directory nor a sweep's"
        raise UserError(f"resume={text}: {what}. A run says at its start where it writes: outputs/DATE/TIME-...")
    sweeps = [argument for argument in arguments if argument in ("-m", "--multirun")]
    if sweeps and "--multirun" not in place:
        raise UserError(f"resume={text} is one run: leave out {sweeps[0]}, or begin a new sweep")
    new = [argument for argument in arguments if _key(argument) != "resume" and argument not in sweeps]
    given = {_key(argument) for argument in new}
    earlier = [override for override in saved if _is_own(override) and _key(override) not in given]
    if (folder / TASK_IDS_FILE).is_file():
        own = f"task_ids_file={quoted(str(folder.absolute() / TASK_IDS_FILE))}"
        earlier = [own if _key(override) == "task_ids_file" else override for override in earlier]
    return for_hydra([*earlier, *new, f"resume={quoted(text)}", *place])


def check_resumable(config: Config, run_dir: Path, today: Callable[[], date] = date.today) -> None:
    """Whether it goes on as the attempt in `run_dir` began, if that came to a simulation, unless `resume_force`.

    Raises:
        UserError: names the keys that differ.
    """
    if config.resume_force or _is_empty(run_dir) or not (run_dir / COMPOSITION_DIR / "config.yaml").exists():
        return
    saved = load_saved(run_dir)
    differences = differing_keys(saved, config)
    if differences:
        shown = [f"{key} ({_short(was)} then, {_short(now)} now)" for key, (was, now) in differences.items()]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise UserError(
            f"{run_dir} was begun with another configuration: {', '.join(shown[:_SHOWN])}{more}.\n"
            f"{_ended_since(saved, today())}"
            "Resume it as it was begun, begin a new run, or go on all the same with resume_force=true."
        )


def _ended_since(saved: Config, today: date) -> str:
    """A sentence, where the run cannot be resumed as it was begun because its models have ended; else nothing."""
    ends = model_ends(model_settings(saved), known_lifetimes())
    ended = [f"{end.model} on {end.ends}" for end in ends if end.is_over(today)]
    return f"Models that it was begun with have ended since: {', '.join(ended)}. " if ended else ""


def _is_empty(run_dir: Path) -> bool:
    """Whether the record of a run is there and holds nothing: a start that failed binds nobody."""
    record = run_dir / RECORD_FILE
    return record.is_file() and record.stat().st_size == 0


def check_same_data(plan: RunPlan, run_dir: Path) -> None:
    """Whether the benchmark's data are still those of the attempts before, unless `resume_force`; domains may be new.

    Raises:
        UserError: prompts, policy, tools, database or tasks of a domain are others.
    """
    saved = {} if plan.config.resume_force or _is_empty(run_dir) else saved_digests(run_dir)
    now = plan.digests if saved else {}
    differing = [
        f"{part}: {name}"
        for part, files in saved.items()
        if part in now
        for name, digest in files.items()
        if now[part].get(name) != digest
    ]
    if differing:
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise UserError(
            f"{run_dir} was begun with other data ({', '.join(differing[:_SHOWN])}{more}).\n"
            "Bring the old data back, begin a new run, or go on all the same with resume_force=true."
        )


def save_digests(plan: RunPlan, run_dir: Path) -> None:
    """Keep what the data of this attempt come to, for `check_same_data`; domains that it left out stay."""
    write_json(run_dir / DIGESTS_FILE, saved_digests(run_dir) | plan.digests)


def saved_digests(run_dir: Path) -> dict[str, dict[str, str]]:
    """What `save_digests` kept; of runs of earlier releases what their summary says; empty where nothing is known."""
    saved = read_object(run_dir / DIGESTS_FILE) or read_summary(run_dir).get("digests")
    return {part: files for part, files in saved.items() if isinstance(files, dict)} if isinstance(saved, dict) else {}


def save_sweep(arguments: Sequence[str], job_overrides: Sequence[str], sweep_dir: Path) -> None:
    """Keep a sweep's own arguments for its resume, once its first job has been accepted.

    Hydra's `multirun.yaml` would not do: a refused resume overwrites it. What the first job found in the environment
    (`job_overrides` has it) holds for all.
    """
    own = [argument for argument in arguments if _is_own(argument)]
    given = {_key(argument) for argument in own}
    found = [override for override in job_overrides if _key(override) in _FOUND and _key(override) not in given]
    write_text(sweep_dir / _SWEEP_FILE, OmegaConf.to_yaml(OmegaConf.create([*found, *own])))


def _is_own(override: str) -> bool:
    """Whether a saved override is about the run: not a flag, not Hydra's, not about an earlier resume."""
    key = _key(override)
    is_hydras = key.startswith("hydra") and key != _SEARCH_PATH
    return bool(key) and not is_hydras and key not in _NOT_TAKEN_OVER


def _short(value: object) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+~") if not argument.startswith("-") else ""


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
