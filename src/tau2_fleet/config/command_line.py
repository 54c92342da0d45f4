"""What happens before Hydra sees the command line: the working directory's `.env`, and flags that do not exist."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from dotenv import dotenv_values

from tau2_fleet.config.names import did_you_mean, nearest_keys
from tau2_fleet.errors import UserError
from tau2_fleet.telemetry.secrets import protect_environment

_FLAG = re.compile(r"-h|--help|--hydra-help|--version|--resolve|-r|--run|-m|--multirun|-sc|--shell-completion")
_FLAG_WITH_VALUE = re.compile(
    r"-c|--cfg|-p|--package|-cp|--config-path|-cn|--config-name|-cd|--config-dir|--experimental-rerun|-i|--info"
)
"""Hydra's own."""


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


def in_order(arguments: Sequence[str]) -> list[str]:
    """The arguments with Hydra's flags first: its parser does not find settings on both sides of a flag.

    Raises:
        UserError: one is a flag that Hydra does not have (the original scripts had many).
    """
    flags: list[str] = []
    rest: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag = argument.partition("=")[0]
        if argument.startswith("-"):
            if not _FLAG.fullmatch(flag) and not _FLAG_WITH_VALUE.fullmatch(flag):
                raise UserError(_unknown_flag(flag))
            flags.append(argument)
        elif _FLAG_WITH_VALUE.fullmatch(before) and "=" not in argument:
            flags.append(argument)
        else:
            rest.append(argument)
    return flags + rest


def _unknown_flag(flag: str) -> str:
    name = flag.lstrip("-").replace("-", "_")
    keys = nearest_keys(name) or nearest_keys(name.replace("_", "."))
    hint = did_you_mean([f"{key}=..." for key in keys])
    return f"{flag}: settings are key=value.{hint} README.md has the table of old flags and new keys."
