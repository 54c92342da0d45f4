"""The documentation builds, its links lead somewhere, and what it quotes is what the program says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands import ROOT

SOURCES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
TROUBLES = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_are_made_without_a_word_of_warning_and_ask_nothing_of_the_network(built: Path):
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]*\.(?:js|css|woff2?)', text), page


def test_every_key_and_every_command_has_its_place(built: Path):
    from tau2_fleet.cli import COMMANDS
    from tau2_fleet.config.table import table

    keys = (built / "configuration.html").read_text(encoding="utf-8")
    assert [
        name for name, entry in table().items() if entry.members is None and f"<code>{name}</code>" not in keys
    ] == []
    options = (built / "commands.html").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f'id="{name}"' not in options] == []


def test_every_command_has_a_guide():
    from tau2_fleet.cli import COMMANDS

    assert [name for name in COMMANDS if not (ROOT / "docs" / "guide" / f"{name}.md").exists()] == []


def quoted() -> list[str]:
    """The lines that the page on troubles gives as the program's words."""
    return [line for block in re.findall(r"^```text\n(.*?)^```$", TROUBLES, re.M | re.S) for line in block.splitlines()]


def test_what_the_page_on_troubles_quotes_is_what_the_program_says():
    joined = re.sub(r'"\s*f?"', "", SOURCES)  # literals that stand one below the other
    plain = re.sub(r"\{[^{}]*\}|\s+", " ", joined)  # without what is filled in
    for line in quoted():
        pieces = [piece for piece in re.split(r"\b\d+\b|OPENAI_API_KEY|process|\(.*?\)", line) if len(piece) > 8]
        assert pieces, line
        for piece in pieces:
            assert re.sub(r"\s+", " ", piece).strip() in plain, piece
