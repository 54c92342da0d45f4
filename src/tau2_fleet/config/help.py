"""What `python -m src.main --help` prints: `conf/help.txt` with the groups of `conf/`; quick, for it needs no Hydra."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from tau2_fleet.paths import CONF_DIR

_MEANINGS = {
    "experiment": "whole settings to start from",
    "domain": "the worlds of the tasks; one or a list",
    "agent": "the format of the agent's replies",
    "server": "where the agent's servers come from",
    "user_llm": "who plays the customer",
    "judge": "who grades natural-language assertions",
    "experts": "stronger models that the agent can hand a turn to",
    "wandb": "Weights & Biases",
    "llm": "models described once, for the four groups above",
}
_WIDTH = 118


def is_asked_for(arguments: Sequence[str]) -> bool:
    """Whether these arguments ask for help."""
    return any(argument in ("--help", "-h") for argument in arguments)


def text() -> str:
    """The help, ready to print."""
    return (CONF_DIR / "help.txt").read_text(encoding="utf-8").replace("<groups>", "\n".join(_groups()))


def _groups() -> Iterator[str]:
    defaults = _defaults()
    for group, meaning in _MEANINGS.items():
        choices = sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
        starred = ", ".join(f"{choice}*" if choice in defaults.get(group, ()) else choice for choice in choices)
        yield f"  {group:<12}{meaning}"
        yield textwrap.fill(
            starred, _WIDTH, initial_indent=" " * 14, subsequent_indent=" " * 14, break_on_hyphens=False
        )


def _defaults() -> dict[str, list[str]]:
    """The choices in the defaults list of `conf/config.yaml`."""
    found = re.findall(r"^  - (\w+): \[?([^\]\n]+)\]?$", (CONF_DIR / "config.yaml").read_text(encoding="utf-8"), re.M)
    return {group: [choice.strip() for choice in choices.split(",")] for group, choices in found}
