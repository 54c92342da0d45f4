"""Hydra's flags, and which arguments of a command line are flags, their values, or settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_FLAG = re.compile(r"-h|--help|--hydra-help|--version|--resolve|-r|--run|-m|--multirun|-sc|--shell-completion")
_FLAG_WITH_VALUE = re.compile(
    r"-c|--cfg|-p|--package|-cp|--config-path|-cn|--config-name|-cd|--config-dir|--experimental-rerun|-i|--info"
)
_FOLDER_FLAG = re.compile(r"-cd|--config-dir|-cp|--config-path")


def is_flag(argument: str) -> bool:
    """Whether it has the form of a flag, known or not."""
    return argument.startswith("-")


def is_known(flag: str) -> bool:
    """Whether Hydra has this flag, given without a value."""
    return bool(_FLAG.fullmatch(flag) or _FLAG_WITH_VALUE.fullmatch(flag))


def apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags with their values, and the settings; each in their order."""
    flags: list[str] = []
    settings: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_value = _FLAG_WITH_VALUE.fullmatch(before) and "=" not in argument
        (flags if is_flag(argument) or is_value else settings).append(argument)
    return flags, settings


def folders(flags: Sequence[str]) -> list[str]:
    """The folders of configuration files that flags name."""
    found = [argument.partition("=")[2] for argument in flags if _FOLDER_FLAG.fullmatch(argument.partition("=")[0])]
    found += [now for before, now in pairwise(flags) if _FOLDER_FLAG.fullmatch(before)]
    return [folder for folder in found if folder]
