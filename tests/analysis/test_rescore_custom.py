"""Runs scored again under somebody's tau2: the run's own, or another one that is named."""

from __future__ import annotations

from pathlib import Path

from tau2_fleet.analysis.rescore import main
from tests.benchmark.small_tau2 import write_small_tau2
from tests.run.runs import run


def test_a_run_is_scored_again_by_its_own_code_or_by_another_that_is_named(
    tmp_path: Path,
) -> None:
    code = write_small_tau2(tmp_path / "code")
    smoke = ("experiment=smoke", "report=false", "wandb=disabled")
    done = run(tmp_path / "run", "benchmark=custom", f"benchmark.path={code}", "domain=lamps", *smoke)
    assert done.returncode == 0, done.stderr
    assert main([str(tmp_path / "run")]) == 0
    results = str(tmp_path / "run" / "lamps.json")
    assert main([results, "--benchmark", f"custom:{code}"]) == 0
    stricter = write_small_tau2(tmp_path / "stricter")
    lamps = stricter / "src" / "tau2" / "lamps.py"
    lamps.write_text(lamps.read_text().replace('return "done"', 'return "Done."'))
    assert main([results, "--benchmark", f"custom:{stricter}", "--replay", "strict"]) == 4
    assert main([results, "--benchmark", "custom:/nowhere"]) == 1
    assert main([results, "--benchmark", "tau2-0.2"]) == 1
