"""Where a run writes: names that never collide, and the `.hydra` folder with what was composed.

Hydra asks for the names through the two resolvers; `src.main` writes `.hydra` once the configuration is valid.
The doctor asks where a run would write.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
from collections.abc import Sequence
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tau2_fleet.config.compose import compose, explain
from tau2_fleet.config.quoting import quoted
from tau2_fleet.config.schema import Config, schema
from tau2_fleet.config.sources import search_path
from tau2_fleet.config.validation import own_paths, unchecked_config
from tau2_fleet.errors import UserError, writing
from tau2_fleet.paths import CHECKOUT
from tau2_fleet.record.atomic import write_text
from tau2_fleet.record.reading import PROMPT_FILE, RECORD_FILE, saved_yaml

COMPOSITION_DIR = ".hydra"
TASK_IDS_FILE = "task_ids.txt"
"""The copy of what `task_ids_file` named."""
_LEFT_BY_A_START = (
    ".lock", "control.json", "profile.jsonl", "prompts.jsonl", "run.log", "servers", "simulations.jsonl", "trace.json",
    "wandb",
)  # fmt: skip
_FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")
_LONGEST_NAME = 80
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    RecursionError,
    OmegaConfBaseException,
    YAMLError,
)
"""What OmegaConf raises for files that hold something else than a configuration."""


def register_resolvers(arguments: Sequence[str]) -> tuple[Path, JobDirectories]:
    """Give Hydra `run_stamp` and `job_dir`; `arguments` are the command line's, as Hydra will see them.

    Returns where a sweep of this process is written if nothing else is said, and who names the directories of its jobs.
    """
    now = datetime.now()
    stamp = f"{now:%Y-%m-%d}/{now:%H-%M-%S}-{secrets.token_hex(3)}"
    jobs = JobDirectories(swept_keys(arguments))
    OmegaConf.register_new_resolver("run_stamp", lambda: stamp, replace=True)
    OmegaConf.register_new_resolver("job_dir", jobs.current, replace=True)
    return Path("multirun", stamp), jobs


def planned_run_dir(arguments: Sequence[str]) -> Path:
    """Where one run with these arguments would write; nothing is made there.

    Raises:
        UserError: they cannot be composed, or name a place where no run may write.
    """
    register_resolvers(arguments)
    tree = compose(arguments, with_hydra=True)
    HydraConfig.instance().set_config(tree)  # for `${hydra:...}` in the name
    try:
        run_dir = Path(tree.hydra.run.dir).absolute()
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    refuse_checkout(run_dir)
    return run_dir


def refuse_checkout(run_dir: Path) -> None:
    """Raises UserError for a run that would write among the files of this program."""
    if run_dir.resolve() == CHECKOUT:
        raise UserError("hydra.run.dir is the checkout itself: give a directory for the run, or leave the key out")


def swept_keys(arguments: Sequence[str]) -> list[str]:
    """The keys to which a sweep gives several values; none where an argument is not understood."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except Exception:  # Hydra parses them again and says what is wrong
        return []
    return [override.get_key_element().lstrip("+") for override in parsed if override.is_sweep_override()]


class JobDirectories:
    """Names the directories of a sweep's jobs: `<number>_<what is swept>`, and finds them again on resume."""

    def __init__(self, swept: Sequence[str]) -> None:
        self._swept = frozenset(swept)
        self._names: dict[int, str] = {}

    def current(self, number: int) -> str:
        """The name for the job that Hydra is about to start."""
        hydra = HydraConfig.get()
        return self.name(number, list(hydra.overrides.task), Path(hydra.sweep.dir))

    def name(self, number: int, overrides: Sequence[str], sweep_dir: Path) -> str:
        """The directory of this sweep with these values, whatever its number was; a new name if there is none yet."""
        if number not in self._names:
            own = [override for override in overrides if override.lstrip("+").partition("=")[0] in self._swept]
            title = plain_name(",".join(own))
            ending = f"_{title}" if title else ""
            there = sorted(
                path.name for path in sweep_dir.glob("*") if re.fullmatch(rf"\d+{re.escape(ending)}", path.name)
            )
            free = [name for name in there if name not in self._names.values()]
            self._names[number] = free[0] if free else f"{number}{ending}"
        return self._names[number]


def plain_name(text: str) -> str:
    """The text as a file name of at most 80 plain characters; a digest keeps altered ones apart."""
    plain = re.sub(r"[^A-Za-z0-9._=,+-]+", "_", text)
    if plain == text and len(text) <= _LONGEST_NAME:
        return text
    return f"{plain[: _LONGEST_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def save_composition(tree: DictConfig, hydra: Any, run_dir: Path) -> list[str]:
    """Write `.hydra/`: the configuration with all references resolved, Hydra's own, and the overrides.

    What an earlier attempt left there is kept as `.hydra/attempt-N/`. Each file appears whole or not at all.
    The overrides are returned: those given, what was found in the environment, and where files of one's own lie, so
    that a resume needs neither the environment nor the working directory.

    Raises:
        UserError: it cannot be written.
    """
    folder = run_dir / COMPOSITION_DIR
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "overrides.yaml").exists():
            _keep(folder)
    given = cast(list[str], OmegaConf.to_container(hydra.hydra.overrides.task, resolve=False))
    own = [f"{key}={quoted(path)}" for key, path in own_paths(tree).items()]
    overrides = [*given, *found_outside(tree, hydra), *own]
    contents = {
        "config.yaml": OmegaConf.to_yaml(tree, resolve=True),
        "hydra.yaml": OmegaConf.to_yaml(hydra),
        "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create(overrides)),
    }
    for name, text in contents.items():
        write_text(folder / name, text)
    return overrides


def keep_task_ids(config: Config, run_dir: Path) -> None:
    """Keep the tasks that `task_ids_file` chose in the run directory, so that a resume needs no other file.

    Raises:
        UserError: the file cannot be written.
    """
    if config.task_ids_file is not None and config.task_ids is not None:
        write_text(run_dir / TASK_IDS_FILE, "".join(f"{name}\n" for name in config.task_ids))


def was_accepted(run_dir: Path) -> bool:
    """Whether a job was begun there, now or earlier."""
    return (run_dir / COMPOSITION_DIR / "overrides.yaml").is_file()


def found_outside(tree: DictConfig, hydra: Any) -> list[str]:
    """What a composed configuration takes from elsewhere than its arguments, as overrides for a resume.

    The values of environment variables, and the user's own folders of configuration files.
    """
    keys = ["agent.model", *(f"domain.{name}.data_dir" for name in tree.domain)]
    found = {key: OmegaConf.select(tree, key) for key in keys if _is_reference(tree, key)}
    folders = [
        f"{source.schema}://{source.path}"
        for source in hydra.hydra.runtime.config_sources
        if source.provider not in ("hydra", "main", "schema")
    ]
    return [*(f"{key}={quoted(value)}" for key, value in found.items() if value), *search_path(folders)]


def _is_reference(tree: DictConfig, key: str) -> bool:
    part, _, name = key.rpartition(".")
    return OmegaConf.is_interpolation(OmegaConf.select(tree, part), name)


def _keep(folder: Path) -> None:
    number = 1 + sum(1 for path in folder.glob("attempt-*") if path.is_dir())
    attempt = folder / f"attempt-{number}"
    attempt.mkdir()
    for name in _FILES:
        if (folder / name).exists():
            shutil.copy2(folder / name, attempt / name)


def load_saved(run_dir: Path) -> Config:
    """The configuration with which a run was last started.

    Raises:
        UserError: there is none, or not one of this program.
    """
    path = run_dir / COMPOSITION_DIR / "config.yaml"
    try:
        tree = load_tree(path)
        if not isinstance(tree, DictConfig) or "domain" not in tree:
            raise UserError("it names no domain")
        return unchecked_config(DictConfig(OmegaConf.merge(OmegaConf.structured(schema()), tree)))
    except FileNotFoundError:
        raise UserError(f"{run_dir}: not a run directory (there is no {path.relative_to(run_dir)})") from None
    except (UserError, *_UNREADABLE) as error:
        raise UserError(f"{path}: cannot be read as a configuration: {' '.join(str(error).split())}") from error


def load_tree(path: Path) -> DictConfig | ListConfig:
    """A file of `.hydra/`.

    Raises:
        OSError, ValueError, YAMLError, RecursionError: it cannot be read.
    """
    return OmegaConf.load(StringIO(saved_yaml(path)))


def wants_report(run_dir: Path) -> bool:
    """Whether a run was started with `report=true`; False where its configuration cannot be read."""
    try:
        return bool(OmegaConf.select(load_tree(run_dir / COMPOSITION_DIR / "config.yaml"), "report", default=True))
    except _UNREADABLE:
        return False


def saved_overrides(path: Path) -> list[str]:
    """The overrides that a file holds.

    Raises:
        UserError: it is missing or holds something else.
    """
    try:
        found = OmegaConf.to_container(load_tree(path), resolve=False)
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise UserError(f"{path}: wanted a list of overrides")
    return [str(item) for item in found]


def remove_failed_start(run_dir: Path) -> bool:
    """Take away what a first attempt has left that ended before any server or simulation began; whether it was one.

    Logs of servers, an upload to W&B and files that are not a run's stay, and then all of it does.
    """
    names = {COMPOSITION_DIR, TASK_IDS_FILE, *_LEFT_BY_A_START}
    try:
        earlier = any(run_dir.glob(f"{COMPOSITION_DIR}/attempt-*"))
        begun = [*run_dir.glob("servers/*.log"), *run_dir.glob("wandb/run-*")]
        written = any((run_dir / name).stat().st_size for name in (RECORD_FILE, PROMPT_FILE))
        if earlier or begun or written or not was_accepted(run_dir):
            return False
        if not {path.name for path in run_dir.iterdir()} <= names:
            return False
        shutil.rmtree(run_dir)
    except OSError:  # it stays, as far as it is there
        return False
    return True


def remove_unused(folder: Path) -> None:
    """Take away the directory of a run or sweep that never began, and those above it that were made for the first."""
    with contextlib.suppress(OSError):
        if folder.exists():
            if [path.name for path in folder.iterdir()] == ["multirun.yaml"]:
                (folder / "multirun.yaml").unlink()
            folder.rmdir()
        folder.parent.rmdir()
        if folder.parent.parent.name in ("outputs", "multirun"):
            folder.parent.parent.rmdir()
