"""The benchmark's package comes in quietly: no `.env`, no heavy libraries, no noise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_fleet.benchmark.package import source

ROOT = Path(__file__).parents[2]


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in a folder."""
    environment = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_import_reads_no_env_file_loads_no_heavy_library_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAU2_FLEET_LEAK=1\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    done = python(
        "import json, os, sys\n"
        "from tau2_fleet.benchmark.domains import DOMAINS, load_domain\n"
        "from tau2_fleet.evaluation import metrics, reward\n"
        "import tau2_fleet.benchmark.prompts\n"
        "for name in DOMAINS: load_domain(name).tasks()\n"
        "heavy = ['pandas', 'numpy', 'litellm', 'wandb', 'deepdiff', 'tau2.data_model.simulation']\n"
        "print(json.dumps([[name for name in heavy if name in sys.modules], 'TAU2_FLEET_LEAK' in os.environ]))\n",
        inner,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == [[], False]


@pytest.mark.parametrize("before", ["", "import pandas, numpy, deepdiff", "import tau2.utils"])
def test_the_rest_of_the_package_works_afterwards(before: str, tmp_path: Path) -> None:
    done = python(
        f"{before}\n"
        "import tau2_fleet.benchmark.domains\n"
        "from tau2.utils import show_dict_diff\n"
        "assert 'values_changed' in show_dict_diff({'a': 1}, {'a': 2})\n"
        "import dotenv\n"
        "assert dotenv.load_dotenv.__module__ == 'dotenv.main'\n"
        "from deepdiff import DeepDiff\n"
        "from tau2.data_model.simulation import Results\n"
        "import pandas\n"
        "assert Results.to_df.__annotations__['return'] is pandas.DataFrame\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_module_of_the_package_is_named() -> None:
    assert source("tau2.agent.llm_agent").name == "llm_agent.py"
    assert source("tau2.utils").name == "__init__.py"
    for name in ("tau2.no_such_module", "no_such_package.module"):
        with pytest.raises(ModuleNotFoundError, match="no"):
            source(name)
