"""The scripts of all base tasks, written and read as at a launch."""

from __future__ import annotations

import pytest

from tau2_fleet.simserver.scripts import Scripts, read_script_file, write_script_file
from tests.simserver.conversation import DOMAINS, tasks_of


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Scripts:
    path = tmp_path_factory.mktemp("scripts") / "scripts.json"
    write_script_file(path, {domain: tasks_of(domain) for domain in DOMAINS})
    return read_script_file(path)
