"""`tau2-fleet ctl VERB DIR`: how a run is, and a hand on it while it goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import orjson

from tau2_fleet.control import client
from tau2_fleet.control.messages import ControlAnswer, ControlRequest, State, Status, Verb
from tau2_fleet.control.remains import is_run, jobs_of
from tau2_fleet.control.telling import facts, headline, next_step, shown
from tau2_fleet.control.watching import tail, watch
from tau2_fleet.display.console import complain, out
from tau2_fleet.display.screen import Screen, line
from tau2_fleet.errors import ExitStatus, UserError

_DESCRIPTION = """How a run is, from its socket or, where it hangs or died, from its files; and what can be done while
it goes on, from another terminal or over ssh on its machine. DIR is a run's directory, or a sweep's: then each of its
jobs that goes on is meant. Nothing ever replaces a simulation that was scored."""
_VERBS = {
    "status": "how it is and what it waits for (status 3: it hangs or died)",
    "tail": "the end of run.log, and what comes",
    "watch": "its screen, here",
    "pause": "begin no simulation, send no request; what is in flight gets its answers",
    "resume": "take pause or drain back",
    "drain": "begin no simulation (of a sweep: no job either); it ends with those in flight, however long they take",
    "cancel": "end a task's simulations here (infrastructure errors), or take them out of the queue",
    "rerun": "run again what ended in an infrastructure error or was taken out of the queue",
    "set": "max_concurrency=N or auto; log_level=LEVEL of run.log; limits.run_timeout_s=SECONDS or null",
}


_SAID = 10
_WITH_VALUE = ("--trial", "-n", "--lines")


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 done, 1 it could not be done, 2 refused, 3 `status` of a run that hangs or died."""
    options = _parser().parse_args(_in_order(list(arguments)))
    try:
        return int(_run(options))
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    except KeyboardInterrupt:  # tail and watch are left so
        return ExitStatus.FINISHED if options.verb in ("tail", "watch") else ExitStatus.INTERRUPTED


def _in_order(given: list[str]) -> list[str]:
    """Verb, options, then the rest: `DIR VERB …` and `VERB DIR …` mean `VERB … DIR`, and options may stand anywhere."""
    words: list[str] = []
    options: list[str] = []
    rest = iter(given)
    for word in rest:
        if word == "--":
            words += rest
        elif word.startswith("-") and word != "-":
            options.append(word)
            if word in _WITH_VALUE:
                options += list(islice(rest, 1))
        else:
            words.append(word)
    if len(words) > 1 and words[0] not in _VERBS and words[1] in _VERBS:
        words = [*words[1:], words[0]]
    if len(words) == 3 and words[0] in _VERBS and Path(words[1]).is_dir() and not Path(words[2]).exists():
        words = [words[0], words[2], words[1]]
    return [*words[:1], *options, *words[1:]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tau2-fleet ctl", description=_DESCRIPTION)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, told in _VERBS.items():
        verb = verbs.add_parser(name, help=told, description=told)
        if name == "rerun":
            verb.add_argument("task", nargs="?", metavar="TASK", help="retail/5, or 5 where one domain has it")
            verb.add_argument("--all", action="store_true", help="all that ended in an infrastructure error")
        if name == "cancel":
            verb.add_argument("task", metavar="TASK", help="retail/5, or 5 where one domain has it")
        if name in ("cancel", "rerun"):
            verb.add_argument("--trial", type=int, help="this trial alone")
        if name == "set":
            verb.add_argument("setting", metavar="KEY=VALUE")
        verb.add_argument("directory", type=Path, metavar="DIR", help="of a run, or of a sweep")
        if name == "tail":
            verb.add_argument("-n", "--lines", type=int, default=20, help="to begin with (20)")
        if name != "watch":
            verb.add_argument("--json", action="store_true", help="for programs")
    return parser


def _run(options: argparse.Namespace) -> ExitStatus:
    directory: Path = options.directory
    if options.verb == "status":
        return _status(directory, options.json)
    if options.verb == "tail":
        for text in tail(_one(directory), max(0, options.lines)):
            if options.json:
                _print_json({"line": text})
            else:
                out.out(text, highlight=False)
        return ExitStatus.FINISHED
    if options.verb == "watch":
        run_dir = _one(directory)
        return _tell(run_dir, watch(run_dir))
    request = _request(options)
    statuses = []
    for run_dir in _live(directory):
        answer = client.ask(run_dir, request)
        statuses.append(_tell_answer(run_dir, directory, answer, as_json=options.json))
    return ExitStatus.worst(statuses)


def _request(options: argparse.Namespace) -> ControlRequest:
    """What the words ask for.

    Raises:
        UserError: they make no sense.
    """
    verb = Verb(options.verb)
    if verb is Verb.rerun and bool(options.all) == bool(options.task):
        raise UserError("rerun: name a task, or say --all")
    if verb is Verb.set:
        key, equals, value = options.setting.partition("=")
        if not equals:
            raise UserError(f"{options.setting}: wanted KEY=VALUE, such as max_concurrency=64")
        return ControlRequest(verb, key=key, value=value)
    if verb in (Verb.cancel, Verb.rerun):
        every = verb is Verb.rerun and options.all
        return ControlRequest(verb, None if every else options.task, options.trial, every)
    return ControlRequest(verb, every=verb is Verb.drain and not is_run(options.directory))


def _jobs(directory: Path) -> list[Path]:
    """The run, or all jobs of the sweep.

    Raises:
        UserError: it is neither.
    """
    found = [directory] if is_run(directory) else jobs_of(directory)
    if not found:
        if directory.is_dir():
            raise UserError(f"{directory} is neither a run's directory nor a sweep's")
        raise UserError(f"{directory} is {'a file, not a directory' if directory.exists() else 'not there'}")
    return found


def _live(directory: Path) -> list[Path]:
    """Where something can be asked for.

    Raises:
        UserError: nowhere.
    """
    found = _jobs(directory)
    if found == [directory]:
        return found
    live = [run_dir for run_dir in found if client.status(run_dir).state.live]
    if not live:
        raise UserError(f"none of the {len(found)} jobs in {directory} goes on")
    return live


def _one(directory: Path) -> Path:
    """The run that can be looked at.

    Raises:
        UserError: a sweep has several that go on, or none.
    """
    live = _live(directory)
    if len(live) > 1:
        raise UserError(f"{directory} has {len(live)} jobs that go on; choose one: {', '.join(map(str, live))}")
    return live[0]


def _status(directory: Path, as_json: bool) -> ExitStatus:
    jobs = _jobs(directory)
    statuses = []
    for run_dir in jobs:
        found = client.status(run_dir)
        if as_json:
            _print_json({"directory": str(run_dir), **_as_object(found)})
        elif jobs == [directory]:
            return _tell(run_dir, found)
        else:
            out.print(headline(run_dir, found))
            if found.shown.overall.total:
                out.print(f"  {line(found.shown)}", markup=False)
        statuses.append(_exit_status(found))
    return ExitStatus.worst(statuses)


def _tell(run_dir: Path, found: Status) -> ExitStatus:
    out.print(headline(run_dir, found))
    if found.shown.overall.total:
        out.print(Screen(found.shown, numbers=found.state is not State.ended))
    for fact in facts(found):
        out.print(fact)
    if step := next_step(run_dir, found):
        out.print(step, markup=False)
    return _exit_status(found)


def _exit_status(found: Status) -> ExitStatus:
    bad = found.state in (State.hangs, State.died) or found.lag_s > 0
    return ExitStatus.NEGATIVE if bad else ExitStatus.FINISHED


def _tell_answer(run_dir: Path, asked: Path, answer: ControlAnswer, *, as_json: bool) -> ExitStatus:
    if as_json:
        _print_json({"directory": str(run_dir), **_as_object(answer)})
    else:
        place = "" if run_dir == asked else f"{shown(run_dir)}: "
        say: Callable[[str], None] = complain if not answer.done else _print
        for text in answer.said[:_SAID]:
            say(f"{place}{text}")
        if len(answer.said) > _SAID:
            say(f"{place}and {len(answer.said) - _SAID} more; --json lists all")
    if answer.done:
        return ExitStatus.FINISHED
    return ExitStatus.REFUSED if answer.refused else ExitStatus.FAILED


def _print(text: str) -> None:
    from tau2_fleet.display.console import neutralise

    out.print(neutralise(text), markup=False)


def _as_object(value: ControlAnswer | Status) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(orjson.dumps(value))
    return found


def _print_json(value: dict[str, object]) -> None:
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
    sys.stdout.flush()
