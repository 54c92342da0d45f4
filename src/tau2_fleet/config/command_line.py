"""What happens before Hydra sees the command line: the working directory's `.env`, and flags that do not exist."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from dotenv import dotenv_values

from tau2_fleet.config import table
from tau2_fleet.config.flags import apart, is_flag, is_known
from tau2_fleet.config.names import did_you_mean, nearest_keys
from tau2_fleet.config.quoting import quoted
from tau2_fleet.config.sources import refuse_missing_folders
from tau2_fleet.errors import UserError
from tau2_fleet.telemetry.secrets import protect_environment

_DIRECTORIES = ("hydra.run.dir", "hydra.sweep.dir")


def read_dotenv(folder: Path | None = None) -> None:
    """Take what the environment lacks from the working directory's `.env`, and keep all keys out of what is written.

    Raises:
        UserError: the file is there and cannot be read.
    """
    path = (folder or Path.cwd()) / ".env"
    try:
        values = dotenv_values(path, interpolate=False) if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__})") from None
    for name, value in values.items():
        if value:
            os.environ.setdefault(name, value)
    protect_environment()


def for_hydra(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra takes them: flags first, and `~` where a path begins as the home directory.

    Its parser does not find settings on both sides of a flag, and takes no `~`.

    Raises:
        UserError: one is a flag that Hydra does not have (the original scripts had many), or names no directory.
    """
    flags, settings = apart(arguments)
    for flag in (argument.partition("=")[0] for argument in flags if is_flag(argument)):
        if not is_known(flag):
            raise UserError(_unknown_flag(flag))
    for setting in settings:
        key, found, value = setting.partition("=")
        if found and key in (*_DIRECTORIES, "resume") and not value.strip("'\" "):
            raise UserError(f"{setting}: it names no directory, as a variable of the shell that is not set")
    _refuse_odd_names([*arguments, os.getcwd()])
    refuse_missing_folders(arguments)
    return [*flags, *(_at_home(setting) for setting in settings)]


def _refuse_odd_names(arguments: Sequence[str]) -> None:
    """Raises UserError for an argument or, last, a working directory that no configuration file can hold."""
    *settings, place = arguments
    for text in (*settings, place):
        what = "the working directory" if text is place else "an argument"
        if not text.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in text):
            shown = _with_bytes_named(text)
            raise UserError(
                f"{shown}: {what} is not UTF-8 text, and a run must write it down: rename that file or folder"
            )
    if "${" in place:
        raise UserError(
            f"{place}: the working directory's name holds ${{, which Hydra takes for a reference: rename it"
        )


def _with_bytes_named(text: str) -> str:
    """Text whose bytes that are not UTF-8 stand as escapes."""
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return text.encode(errors="backslashreplace").decode()


def _at_home(setting: str) -> str:
    """A path that begins with `~`, or several of a sweep, spelt out."""
    key, _, value = setting.partition("=")
    entry = table.find(key.lstrip("+"))
    is_path = key in _DIRECTORIES or (entry is not None and entry.key.path)
    if not is_path or not re.match("~|['\"]~", value):
        return setting
    if value[0] in "'\"":
        mark = value[0]
        return f"{key}={mark}{os.path.expanduser(value[1:])}" if value.endswith(mark) else setting
    paths = (os.path.expanduser(path.strip()) for path in value.split(","))
    return f"{key}={','.join(quoted(path) for path in paths)}"


def _unknown_flag(flag: str) -> str:
    name = flag.lstrip("-").replace("-", "_")
    keys = nearest_keys(name) or nearest_keys(name.replace("_", "."))
    hint = did_you_mean([f"{key}=..." for key in keys])
    return f"{flag}: settings are key=value.{hint} docs/guide/old-flags.md has the old flags and their new keys."
