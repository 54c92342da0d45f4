"""The promises of the one table of keys: said once beside the field, and everything else drawn from it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tau2_fleet.config import departures, differing_keys, flat, help, result_digest, table
from tau2_fleet.config.compose import compose
from tau2_fleet.config.schema import Config
from tau2_fleet.config.validation import unchecked_config, validate
from tau2_fleet.errors import UserError
from tau2_fleet.key import COUNT, Resume, key
from tau2_fleet.run.directory import load_saved

SAVED = json.loads((Path(__file__).parent / "first_release.json").read_text())
"""Configurations as commit 46df27c saved them, with the digests and departures that it computed."""


@pytest.mark.parametrize("saved", SAVED, ids=[entry["overrides"][:40] or "defaults" for entry in SAVED])
def test_runs_of_the_first_release_keep_their_digest_and_departures(saved: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(yaml.safe_dump(saved["config"]))
    config = load_saved(tmp_path)
    reference, found = departures(config)
    assert result_digest(config) == saved["result_digest"]
    assert (reference, json.dumps(found)) == (saved["reference"], json.dumps(saved["departures"]))


def test_every_key_says_what_it_means_and_has_a_possible_default() -> None:
    for entry in table.table().values():
        assert entry.key.help, entry.name
        assert entry.members is not None or entry.problem(entry.default) is None, entry.name
        assert not entry.key.help.endswith("."), entry.name


def test_a_key_is_added_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its field: then it is checked, explained, compared and digested, and old runs keep their digest."""

    @dataclasses.dataclass
    class Wider(Config):
        patience: int = key(3, help="how often to smile", range=COUNT, added=True)
        tracing: bool = key(False, help="draw a trace", resume=Resume.may_differ, added=True)

    before = result_digest(unchecked_config(compose(["experiment=smoke"])))
    monkeypatch.setattr(table, "Config", Wider)
    table.table.cache_clear()
    try:
        wider = Wider(**vars(unchecked_config(compose(["experiment=smoke"]))))
        assert result_digest(wider) == before
        patient = dataclasses.replace(wider, patience=4, tracing=True)
        assert result_digest(patient) != before
        assert differing_keys(wider, patient) == {"patience": (3, 4)}
        with pytest.raises(UserError, match="patience=0: must be at least 1"):
            validate(dataclasses.replace(wider, patience=0))
        assert re.search(r"^  patience +how often to smile \[3\]$", help.text(), re.M)
        assert "results depend on it" in help.text(["--help", "patience"])
        assert table.key_names()[-2:] == ["patience", "tracing"]
    finally:
        table.table.cache_clear()


def test_the_defaults_that_the_help_shows_are_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CKPT_DIR", "TAU2_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    values = flat(unchecked_config(compose([])))
    for name in table.key_names(["retail"]):
        entry = table.find(name)
        assert entry is not None
        said_otherwise = entry.key.shown is not None or name.startswith(("user_llm.", "judge.", "experts.expert_"))
        if name in values and not said_otherwise:
            assert values[name] == flat(entry.default, "x.").get("x", entry.default), name


def test_the_help_of_a_group_says_all_of_its_keys_and_choices() -> None:
    text = help.text(["--help", "server.simulated.faults"])
    assert "server.simulated.faults.rate [0]" in text
    assert "a number, at least 0 and at most 1" in text
    assert "may be another when a run is resumed" in text
    assert "one of absent, external, simulated, vllm" in help.text(["--help", "server"])
    assert "domain.NAME.tasks [base]" in help.text(["--help", "domain.retail.tasks"])
    with pytest.raises(UserError, match=r"sever\.num: there is no such key\. Did you mean server\.num\?"):
        help.text(["--help", "sever.num"])
