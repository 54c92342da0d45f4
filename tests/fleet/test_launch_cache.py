from __future__ import annotations

from pathlib import Path

import pytest

from tau2_fleet.config import load_config
from tau2_fleet.config.compose import compose
from tau2_fleet.fleet.launch import cache_root
from tau2_fleet.paths import use_scratch_dir


def test_what_outlives_a_run_is_kept_in_scratch_dir_or_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_root() == tmp_path / "cache" / "tau2-fleet"
    config = load_config(compose(["experiment=smoke", f"scratch_dir={tmp_path / 'scratch'}"]))
    use_scratch_dir(config.scratch_dir)
    try:
        assert cache_root() == tmp_path / "scratch"
        assert (tmp_path / "scratch").is_dir()
    finally:
        use_scratch_dir(None)
    assert cache_root() == tmp_path / "cache" / "tau2-fleet"
