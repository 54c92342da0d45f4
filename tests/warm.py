"""Commands of this program in processes of their own that begin with its imports done: half the cost of a small run.

`run` is `subprocess.run([sys.executable, "-m", module, ...])` for tests of what a command does. A process that waits
with everything imported is forked for each; it ends with the tests. Tests of how a command is started, or of what it
imports, start it themselves.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_IMPORTED = (
    "asyncio",
    "aiohttp.web",
    "hydra.main",
    "hydra._internal.utils",
    "hydra.core.hydra_config",
    "rich.progress",
    "tau2_fleet.run.command",
    "tau2_fleet.run.experiment",
    "tau2_fleet.tracking.tracker",
    *(f"tau2.domains.{domain}.environment" for domain in ("mock", "retail", "airline", "telecom")),
)

_LOCK = threading.Lock()
"""One command at a time."""


def run(
    module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """What `python -m module arguments` did, in this directory and environment; `module` is one of this project's.

    Raises:
        subprocess.TimeoutExpired: it did not end; it was killed.
    """
    with _LOCK, tempfile.TemporaryDirectory() as folder:
        waiting = _waiting()
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        printed = [Path(folder, name) for name in ("stdout", "stderr")]
        os.umask(umask := os.umask(0))
        order = [module, list(map(str, arguments)), str(cwd), dict(env), umask, list(map(str, printed))]
        sent = json.dumps(order).encode() + b"\n"
        while sent:
            sent = sent[waiting.stdin.write(sent) :]
        pid = int(waiting.stdout.readline())
        if not select.select([waiting.stdout], [], [], timeout_s)[0]:
            os.kill(pid, signal.SIGKILL)
            waiting.stdout.readline()
            raise subprocess.TimeoutExpired([module, *arguments], timeout_s, *(path.read_bytes() for path in printed))
        status = int(waiting.stdout.readline())
        words = [sys.executable, "-m", module, *arguments]
        return subprocess.CompletedProcess(words, status, *(path.read_text(errors="replace") for path in printed))


@cache
def _waiting() -> subprocess.Popen[bytes]:
    """The process that is forked; it ends when this one does. Without buffers, in which an answer could lie that
    `select` knows nothing of.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.warm"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    atexit.register(process.terminate)
    return process


def _serve() -> None:
    from importlib import import_module

    orders, answers = sys.stdin, os.dup(1)
    paths = list(sys.path)
    for name in _IMPORTED:
        import_module(name)
    for line in orders:
        module, arguments, cwd, env, umask, printed = json.loads(line)
        pid = os.fork()
        if not pid:
            os.umask(umask)
            _become(module, arguments, cwd, env, printed, paths)
        os.write(answers, b"%d\n" % pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(answers, b"%d\n" % status)


def _become(
    module: str, arguments: list[str], cwd: str, env: dict[str, str], printed: list[str], paths: list[str]
) -> None:
    """Be `python -m module arguments` from here on."""
    import runpy
    import traceback

    status = 1
    try:
        os.closerange(3, 64)
        for number, path in enumerate(printed, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1, errors="backslashreplace")
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        ours = {"", str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
        added = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:] = [cwd, *added, *(path for path in paths if path not in ours)]
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
