"""Logs: what reaches run.log, the terminal and stdout, and what never does."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tau2_fleet.telemetry import secrets
from tau2_fleet.telemetry.levels import DEBUG, INFO, PROFILE, WARNING, LogLevel
from tau2_fleet.telemetry.logs import setup
from tests.telemetry.events_of import simulation

LINE = re.compile(r"\[[A-Z_]+\] \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} task=\S+ trial=\S+ thread=\S+ ")
own = logging.getLogger("tau2_fleet.somewhere")


def test_the_levels_are_those_of_the_specification() -> None:
    assert [level.number for level in LogLevel] == [10, 15, 16, 20, 30, 40, 50]
    assert logging.getLevelName(15) == "PROFILE"
    assert logging.getLevelName(16) == "USER_JUDGE"


def test_at_info_run_log_has_everything_from_info_and_the_terminal_only_warnings(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with setup(tmp_path, INFO), simulation("retail", "7", 2, 41):
        own.debug("too fine")
        own.info("for the file")
        own.warning("for both")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert all(LINE.match(line) for line in lines)
    assert [line.split("thread=41 ")[1] for line in lines] == ["for the file", "for both"]
    assert "task=retail_7 trial=2" in lines[0]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == "warning: for both\n"


def test_at_profile_the_lines_go_to_stdout_too_and_none_is_doubled(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with setup(tmp_path, PROFILE) as logs:
        own.info("said once")
        logs.line(PROFILE, "[PROFILE] an event")
        logs.line(DEBUG, "[DEBUG] below the level")
        own.error("gone wrong")
    captured = capfd.readouterr()
    out = captured.out.splitlines()
    assert len(out) == 2
    assert out[0].endswith("said once")
    assert out[1] == "[PROFILE] an event"
    assert captured.err == "error: gone wrong\n"
    assert len((tmp_path / "run.log").read_text().splitlines()) == 3


def test_lines_and_warnings_reach_a_pipe_once_each(tmp_path: Path) -> None:
    script = (
        "import logging, sys\nfrom pathlib import Path\nfrom tau2_fleet.telemetry.logs import setup\n"
        "with setup(Path(sys.argv[1]), 15) as logs:\n"
        "    logs.line(15, '[PROFILE] type=llm_call duration_ms=10.00')\n"
        "    logging.getLogger('tau2_fleet.x').warning('careful')\n"
    )
    command = f'"{sys.executable}" -c "$SCRIPT" "{tmp_path}" 2>&1 | tee "{tmp_path}/tee" | grep -c type=llm_call'
    done = subprocess.run(
        command, shell=True, check=True, capture_output=True, text=True, env={**os.environ, "SCRIPT": script}
    )
    assert done.stdout.strip() == "1"
    assert (tmp_path / "tee").read_text().count("careful") == 1


def test_above_warning_the_terminal_is_as_quiet_as_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with setup(tmp_path, logging.ERROR):
        own.warning("not wanted")
    assert (tmp_path / "run.log").read_text() == ""
    assert capfd.readouterr().err == ""


def test_the_chatter_of_other_libraries_stays_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with setup(tmp_path, DEBUG):
        for name in ("litellm", "httpx", "aiohttp.client", "urllib3"):
            logging.getLogger(name).warning("chatter of %s", name)
        warnings.warn("this will be deprecated", stacklevel=1)
        logging.getLogger("asyncio").error("Task exception was never retrieved")
    text = (tmp_path / "run.log").read_text()
    assert "chatter" not in text
    assert "never retrieved" in text
    assert "deprecated" in text
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_a_message_is_one_line_and_cannot_move_the_cursor(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with setup(tmp_path, INFO):
        own.warning("model said: %s", "a\nb\x1b[2J\u202e[link]\ud800")
    assert "a\\nb\\x1b[2J\\u202e[link]\\ud800\n" in (tmp_path / "run.log").read_text()
    assert capfd.readouterr().err == "warning: model said: a\\nb\\x1b[2J\\u202e[link]\\ud800\n"


def test_a_traceback_is_in_the_file_and_one_line_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with setup(tmp_path, INFO):
        try:
            raise OSError("no room")
        except OSError:
            own.warning("cannot save", exc_info=True)
            own.warning("OSError: no room", exc_info=True)
    assert "Traceback" in (tmp_path / "run.log").read_text()
    assert capfd.readouterr().err.splitlines() == [
        "warning: cannot save (OSError: no room; traceback in run.log)",
        "warning: OSError: no room (traceback in run.log)",
    ]


def test_no_secret_reaches_a_line_a_terminal_or_a_pipe(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("redactor", "record_redactor"):  # they know no key of other tests, and forget those of this one
        monkeypatch.setattr(getattr(secrets, name), "_known", {})
        monkeypatch.setattr(getattr(secrets, name), "_needles", ())
    secrets.protect_environment({"OPENAI_API_KEY": "sk-0123456789", "HF_TOKEN": 'hf_"quoted"', "HOME": "/home/me/a"})
    proxies = {"HTTPS_PROXY": "http://me:pr0xy%2Fpassword@host:1/", "WANDB_BASE_URL": "https://0123456789abcdef@w"}
    secrets.protect_environment(proxies)
    secrets.protect("fleet-key-abcdef", None, "EMPTY")
    with setup(tmp_path, PROFILE) as logs:
        own.warning("refused sk-0123456789 in /home/me/a, EMPTY")
        own.warning("no answer from http://me:pr0xy%2Fpassword@host:1 (pr0xy/password), https://0123456789abcdef@w")
        logs.line(PROFILE, 'key=fleet-key-abcdef {"token": "hf_\\"quoted\\""}')
    captured = capfd.readouterr()
    everything = (tmp_path / "run.log").read_text() + captured.out + captured.err
    for secret in ("sk-0123456789", "fleet-key-abcdef", "quoted", "pr0xy", "abcdef@"):
        assert secret not in everything
    assert "/home/me/a, EMPTY" in everything
    assert "key=[redacted]" in captured.out
    assert secrets.redact("x sk-0123456789") == "x [redacted]"


def test_run_log_is_bounded_in_size(tmp_path: Path) -> None:
    with setup(tmp_path, INFO, max_bytes=10_000) as logs:
        for number in range(2_000):
            own.info("line %04d %s", number, "x" * 50)
            if number % 50 == 0:
                logs.flush()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"run.log", "run.log.1", "run.log.2", "run.log.3"}
    assert max(sizes.values()) <= 10_000
    assert (tmp_path / "run.log").read_text().splitlines()[-1].endswith(f"line 1999 {'x' * 50}")


def test_a_resumed_run_appends_after_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("[INFO] whole\n[INFO] to")
    with setup(tmp_path, INFO):
        own.info("again")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert lines[:2] == ["[INFO] whole", "[INFO] to"]
    assert lines[2].endswith("again")


def test_afterwards_logging_is_as_it_was(tmp_path: Path) -> None:
    logger = logging.getLogger("tau2_fleet")
    before = (logger.level, logger.propagate, list(logger.handlers), list(logging.getLogger().handlers))
    with pytest.raises(RuntimeError), setup(tmp_path, WARNING):
        raise RuntimeError
    assert (logger.level, logger.propagate, list(logger.handlers), list(logging.getLogger().handlers)) == before


def test_a_torn_line_on_a_full_disk_does_not_keep_a_run_from_going_on(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("[INFO] to")
    code = f"""
import resource
from pathlib import Path
from tau2_fleet.telemetry.logs import setup
resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))
with setup(Path({str(tmp_path)!r}), 20) as logs:
    logs.line(20, "lost")
print("went on")
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "went on\n"
    assert process.stderr.startswith("warning: cannot write run.log any longer")
