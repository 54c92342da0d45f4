"""The Chinese README shows the same commands, keys and links as the English one."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.docs.commands import ROOT

ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```.*?^```$", text, re.M | re.S)


def inline(text: str) -> Counter[str]:
    """What stands between single backticks, outside blocks, a table's row being one line in both."""
    return Counter(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)))


def links(text: str) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("README")]


@pytest.mark.parametrize("part", [blocks, inline, links])
def test_the_chinese_readme_shows_what_the_english_one_shows(part):
    assert part(CHINESE) == part(ENGLISH)


def test_it_has_the_same_headings_in_number():
    assert len(re.findall(r"^#+ ", CHINESE, re.M)) == len(re.findall(r"^#+ ", ENGLISH, re.M))


def test_a_command_that_changes_is_noticed():
    changed = ENGLISH.replace("make smoke", "make smokes", 1)
    assert blocks(changed) != blocks(CHINESE)
