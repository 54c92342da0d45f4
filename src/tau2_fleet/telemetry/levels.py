"""The log levels (docs/formats.md), two of the program's own between DEBUG and INFO; `logs` and `lines` use them."""

from __future__ import annotations

import logging
from enum import StrEnum

DEBUG = logging.DEBUG
PROFILE = 15
USER_JUDGE = 16
INFO = logging.INFO
WARNING = logging.WARNING
ERROR = logging.ERROR
CRITICAL = logging.CRITICAL


class LogLevel(StrEnum):
    """What `log_level` can be; each shows itself and everything below it in this list."""

    DEBUG = "DEBUG"
    """Also prompts, tool arguments and routing."""
    PROFILE = "PROFILE"
    """Also one line per model call, expert call, tool call and step."""
    USER_JUDGE = "USER_JUDGE"
    """Also one line per call of the user simulator and the judge."""
    INFO = "INFO"
    """What a run does, and each simulation's end."""
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"

    @property
    def number(self) -> int:
        """The level as Python's `logging` counts it."""
        return _NUMBERS[self]


_NUMBERS = {
    LogLevel.DEBUG: DEBUG,
    LogLevel.PROFILE: PROFILE,
    LogLevel.USER_JUDGE: USER_JUDGE,
    LogLevel.INFO: INFO,
    LogLevel.WARNING: WARNING,
    LogLevel.ERROR: ERROR,
    LogLevel.CRITICAL: CRITICAL,
}

logging.addLevelName(PROFILE, "PROFILE")
logging.addLevelName(USER_JUDGE, "USER_JUDGE")
