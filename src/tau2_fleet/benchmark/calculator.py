"""The package's `calculate` tool, made safe: expressions that could hold the process are evaluated in a child.

`9**9**9` runs for ever in one C call, threads included. The child has limits of CPU time and memory, and gives the
same answers and error texts, since it is the same interpreter evaluating the same expression.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

CPU_LIMIT_S = 2
"""CPU seconds an expression may take."""
WALL_LIMIT_S = 60.0
"""Seconds after which the child is killed although it has not used its CPU time: the machine is overloaded."""
MEMORY_LIMIT_BYTES = 512 << 20
CHILDREN = 4
"""How many run at a time; further calls wait their turn."""

_ALLOWED = frozenset("0123456789+-*/(). ")
_LONG = 500
"""Characters: a longer expression can nest deep enough to bring down the parser or the compiler."""

_CHILD = f"""
import json, resource, sys, warnings
for name, most in (("CPU", {CPU_LIMIT_S}), ("AS", {MEMORY_LIMIT_BYTES}), ("CORE", 0)):
    try:
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
    except (OSError, ValueError):
        pass  # a lower limit holds already
warnings.simplefilter("ignore")
expression = sys.stdin.read()
try:
    code = compile(expression.lstrip(" "), "<string>", "eval")
except Exception as error:
    print(json.dumps({{"error": str(error)}}))
    sys.exit()
try:
    print(json.dumps({{"answer": str(round(float(eval(code, {{"__builtins__": None}}, {{}})), 2))}}))
except MemoryError:
    sys.exit(1)
except Exception as error:
    print(json.dumps({{"error": str(error)}}))
"""
_COMMAND = (sys.executable, "-I", "-S", "-c", _CHILD)


class ToolDeadline(Exception):
    """A tool call did not end within its limits; the simulation ends as `deadline`."""


class CalculationError(Exception):
    """What `calculate` would have raised; `str()` of it is the package's text."""


def risky_expression(arguments: Mapping[str, Any]) -> str | None:
    """The expression of a call of `calculate` when it must be evaluated in a child, None when the tool itself can."""
    if arguments.keys() != {"expression"}:
        return None
    expression = arguments["expression"]
    if not isinstance(expression, str) or not _ALLOWED.issuperset(expression):
        return None
    return expression if "**" in expression or len(expression) > _LONG else None


async def calculate(expression: str) -> str:
    """The answer of `calculate`, from a child process; the event loop goes on meanwhile.

    Raises:
        CalculationError: the tool's own error.
        ToolDeadline: the limits were reached.
    """
    if (known := _known.get(expression)) is not None:
        return _outcome(expression, known)
    loop = asyncio.get_running_loop()
    async with _turns.setdefault(loop, asyncio.Semaphore(CHILDREN)):
        child = await asyncio.create_subprocess_exec(
            *_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        )
        try:
            printed, _ = await asyncio.wait_for(child.communicate(expression.encode()), WALL_LIMIT_S)
        except TimeoutError:
            printed = b""
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    return _outcome(expression, printed)


def calculate_blocking(expression: str) -> str:
    """As `calculate`, for callers outside an event loop."""
    if (known := _known.get(expression)) is not None:
        return _outcome(expression, known)
    try:
        done = subprocess.run(
            _COMMAND,
            input=expression.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WALL_LIMIT_S,
            check=False,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        return _outcome(expression, b"")
    return _outcome(expression, done.stdout)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_known: dict[str, bytes] = {}
"""What the child printed for an expression; scoring asks for the same ones again."""
_MOST_KNOWN = 10_000


def _environment() -> dict[str, str]:
    """No keys: the child needs nothing but its libraries."""
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}


def _outcome(expression: str, printed: bytes) -> str:
    if not printed.strip():
        raise ToolDeadline(
            f"calculate({_shortened(expression)}) reached its limit of {CPU_LIMIT_S} s of CPU time or "
            f"{MEMORY_LIMIT_BYTES >> 20} MiB"
        )
    if len(_known) < _MOST_KNOWN:
        _known[expression] = printed
    outcome = json.loads(printed)
    if "error" in outcome:
        raise CalculationError(outcome["error"])
    return str(outcome["answer"])


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
