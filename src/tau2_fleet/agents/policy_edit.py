"""Edits of the agent's policy for runs with experts (`experts.policy_edit`); experts read the original."""

from __future__ import annotations

import re
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.regular import read_given

_HUMAN_TRANSFER = re.compile(r"transfer\w*\b[^\n]*\bhuman|human agents?[^\n]*\btransfer|\bTRANSFERRED TO A HUMAN", re.I)

OWN_PARAGRAPH = (
    "When a request is beyond what you can safely handle yourself, hand the turn to an expert with the "
    "`call_expert` tool instead of sending the customer away."
)


def edit_policy(policy: str, edit: str) -> str:
    """The policy as the agent reads it.

    Args:
        policy: The domain's own policy.
        edit: `off`; `own`, which puts `OWN_PARAGRAPH` where the policy first speaks of a transfer to
            human agents and takes such lines away elsewhere; or a YAML file with a list under
            `replacements`, each with `pattern` (a regular expression) and `text`.

    Raises:
        UserError: the file is missing or not of that form.
    """
    if edit == "off":
        return policy
    if edit == "own":
        return _replace_transfer_lines(policy)
    for pattern, text in _replacements(Path(edit)):
        policy = pattern.sub(text.replace("\\", r"\\"), policy)
    return policy


def _replace_transfer_lines(policy: str) -> str:
    lines: list[str] = []
    for line in policy.split("\n"):
        if not _HUMAN_TRANSFER.search(line):
            lines.append(line)
        elif OWN_PARAGRAPH not in lines:
            lines.append(OWN_PARAGRAPH)
    return "\n".join(lines)


def _replacements(path: Path) -> list[tuple[re.Pattern[str], str]]:
    import yaml

    try:
        content = yaml.safe_load(read_given(path).decode("utf-8"))
        return [(re.compile(item["pattern"], re.M), str(item["text"])) for item in content["replacements"]]
    except FileNotFoundError as error:
        raise UserError(
            f"experts.policy_edit={path}: no such file; give `off`, `own` or a YAML file of replacements"
        ) from error
    except (OSError, ValueError, yaml.YAMLError, re.error, KeyError, TypeError) as error:
        raise UserError(
            f"experts.policy_edit={path}: wanted `replacements:` with a list of `pattern` and `text` ({error})"
        ) from error
