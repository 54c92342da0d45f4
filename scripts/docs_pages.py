"""What MkDocs asks while it builds the documentation: pages made from the program itself, and plain code fences.

`configuration.md` comes from the table of keys, `commands.md` from what each command says of itself.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

_FENCE = re.compile(r"^```(\w+) (\S.*)$", re.M)
_FILE = re.compile(r"file=(\S+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file holds."""
    files.append(File.generated(config, "configuration.md", content=configuration()))
    files.append(File.generated(config, "commands.md", content=commands()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn what the tests read behind a fence's language into a title, or into nothing."""
    return _FENCE.sub(_plain, markdown)


def _plain(fence: re.Match[str]) -> str:
    file = _FILE.search(fence[2])
    return f"```{fence[1]}" + (f' title="{file[1]}"' if file else "")


def configuration() -> str:
    """Every key with its type, default, range and meaning."""
    from tau2_fleet.config.table import table
    from tau2_fleet.key import Resume

    on_resume = {Resume.fixed: "the same", Resume.may_grow: "may grow", Resume.may_differ: "may differ"}
    lines = [
        "# Configuration",
        "",
        "`key=value` on the command line of `run`, `doctor` and `serve`, or a file in `conf/`; `group=choice` takes a",
        "whole file. `tau2-fleet run --help` lists the groups and their choices. `NAME` stands for any domain's name.",
        "The last column says what another value means for a run that is to go on (`resume=DIR`): it must be the same,",
        "it may grow, or it may differ.",
        "",
    ]
    section = None
    for entry in table().values():
        head = entry.name.partition(".")[0]
        if head != section:
            section = head
            lines += ["", f"## {head}", "", "| key | takes | default | meaning | on resume |", "|---|---|---|---|---|"]
        if entry.members is not None:
            continue
        default = entry.key.shown or _default(entry.default)
        takes = entry.wanted() + (f", {entry.key.range}" if entry.key.range else "")
        takes = " or ".join(entry.key.among) if entry.key.among else takes
        cells = (f"`{entry.name}`", takes, default, entry.key.help, on_resume[entry.resume])
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(_without_empty_tables(lines)) + "\n"


def _default(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    try:
        return f"`{json.dumps(value)}`"
    except TypeError:
        return ""


def _without_empty_tables(lines: list[str]) -> list[str]:
    kept: list[str] = []
    for line in [*lines, "## "]:
        if line.startswith("## ") and kept[-1].startswith("|---"):
            del kept[-5:]
        kept.append(line)
    return kept[:-1]


def commands() -> str:
    """What `tau2-fleet COMMAND --help` says, for each command."""
    from tau2_fleet.cli import COMMANDS

    parts = ["# All options\n\nWhat `tau2-fleet COMMAND --help` says.\n"]
    for name in COMMANDS:
        text = subprocess.run(
            [sys.executable, "-m", "tau2_fleet", name, "--help"],
            env={"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        parts.append(f"## {name}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(parts)
