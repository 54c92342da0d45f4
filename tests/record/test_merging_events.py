"""What becomes of files that a merge takes over as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tau2_fleet.record.merging_events import keep_server_logs


@pytest.mark.parametrize("links", [True, False])
def test_servers_logs_are_kept_by_run_and_copied_where_there_are_no_links(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    for name in ("a", "b/c"):
        (tmp_path / name / "servers" / "older").mkdir(parents=True)
        (tmp_path / name / "servers" / "agent-0.log").write_text(name)
        (tmp_path / name / "servers" / "older" / "agent-0.log").write_text("of a merge before")
        (tmp_path / name / "servers" / "tasks-1.json").write_text("{}")
        (tmp_path / name / "servers" / "elsewhere.log").symlink_to("/etc/hostname")
    keep_server_logs({name: tmp_path / name for name in ("a", "b/c")}, tmp_path / "whole")
    kept = {str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    assert kept == {f"servers/{name}/{log}agent-0.log" for name in ("a", "b-c") for log in ("", "older/")}
    assert (tmp_path / "whole" / "servers" / "b-c" / "agent-0.log").read_text() == "b/c"
    there = tmp_path / "a" / "servers" / "agent-0.log"
    assert (tmp_path / "whole" / "servers" / "a" / "agent-0.log").samefile(there) is links
