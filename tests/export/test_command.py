"""What the command says and does where something is odd, and formats of one's own."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from tau2_fleet.export import formats
from tau2_fleet.export.command import main
from tau2_fleet.export.export_format import ExportFormat
from tau2_fleet.extensions import make, names
from tests.examples import write_examples
from tests.export.conftest import write_records
from tests.run.runs import records


def test_every_format_is_a_file_found_by_its_name() -> None:
    assert {"csv", "parquet", "sft", "dpo"} <= set(names(formats.__name__))
    for name in names(formats.__name__):
        make(name, "--format", formats.__name__, ExportFormat)


def test_a_format_of_ones_own_is_found_by_its_import_path(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_examples(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "out.txt"
    assert main([str(run_dir), "--format", "transcript.Transcript", "--role", "user", "-o", str(path)]) == 0
    users = [
        m["content"] for line in records(run_dir) for m in line["messages"] if m["role"] == "user" and m["content"]
    ]
    assert path.read_text().count("user: ") == len(users)
    assert "assistant: " not in path.read_text()


def test_a_format_of_ones_own_that_fails_is_told_by_its_name(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_examples(tmp_path)
    (tmp_path / "broken.py").write_text(
        "from transcript import Transcript\n"
        "class Broken(Transcript):\n"
        "    def write(self, export): raise ValueError('no\\nluck')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main([str(run_dir), "--format", "broken.Broken", "-o", str(tmp_path / "out.txt")]) == 1
    assert capsys.readouterr().err == "error: --format: broken.Broken failed: ValueError: no luck\n"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["nowhere", "--format", "csv"], 1, "nowhere is no run directory"),
        (["RUN", "--format", "cvs"], 1, "--format=cvs: there is none of this name, only csv,"),
        (["RUN", "--format", "no_module.X"], 1, "no_module.X cannot be had"),
        (["RUN", "--format", "csv", "--domain", "bank"], 1, "--domain bank: no simulation is of it; domains: "),
        (["RUN", "--format", "csv", "--domain", "airline", "--domain", "retial"], 1, "it, did you mean 'retail'?"),
        (["RUN", "--format", "csv", "--task", "nowhere"], 1, "--task nowhere: no simulation is of it"),
        (["RUN", "--format", "sft", "--domain", "airline", "--task", "49"], 1, "--task 49: no simulation is of it"),
        (["RUN", "--format", "csv", "-o", "RUN"], 1, "is a folder, and this format is one file"),
        (["RUN", "--format", "sft", "-o", "RUN/summary.json"], 1, "is a file, and this format is a folder"),
        (["RUN", "--format", "sft", "-o", "RUN"], 1, "was not written by an export and is not replaced"),
        (["RUN", "--format", "csv", "-o", "RUN/simulations.jsonl"], 1, "is a file of a run and is not replaced"),
        (["RUN", "--format", "csv", "-o", "RUN/.hydra/config.yaml"], 1, "is a file of a run and is not replaced"),
        (
            ["RUN", "--format", "csv", "--min-reward", "1", "--max-reward", "0", "-o", "RUN/no.csv"],
            1,
            "no simulation is",
        ),
        (["RUN", "--format", "parquet", "--min-reward", "1", "--max-reward", "0"], 1, "no simulation is as asked for"),
        (["RUN", "--format", "csv", "-o", "/proc/nothing/a.csv"], 1, "cannot write /proc/nothing/a.csv"),
        (["RUN", "--format", "csv", "-o", "/dev/full/a.csv"], 1, "cannot write /dev/full/a.csv"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    run_dir: Path, arguments: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("RUN", str(run_dir)) for argument in arguments]
    assert main([*given, "--force"]) == status
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_nothing_is_overwritten_unless_it_is_said(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for form in ("csv", "sft"):
        path = tmp_path / form
        assert main([str(run_dir), "--format", form, "-o", str(path)]) == 0
        assert main([str(run_dir), "--format", form, "-o", str(path)]) == 1
        assert f"{path} is there already; --force writes it again" in capsys.readouterr().err
        assert main([str(run_dir), "--format", form, "-o", str(path), "--force"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["csv", "sft"]


def test_an_export_that_fails_leaves_what_was_there(run_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "sft"
    assert main([str(run_dir), "--format", "sft", "-o", str(path)]) == 0
    before = (path / "train.jsonl").read_bytes()
    lines = [line for line in records(run_dir) if line["domain"] == "telecom"]
    write_records(tmp_path / "other", [{**line, "domain": "elsewhere"} for line in lines])
    assert main([str(tmp_path / "other"), "--format", "sft", "-o", str(path), "--force"]) == 1
    assert (path / "train.jsonl").read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["other", "sft"]


def test_damaged_lines_are_named_and_the_last_readable_line_counts(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = [record for record in records(run_dir) if record["trial"] == 0][:2]
    lines = [one, {**one, "reward": 0.0}, two, {**one, "reward": 7}, {**two, "reward": 0.0, "trial": -1}]
    write_records(tmp_path / "run", lines)
    with (tmp_path / "run" / "simulations.jsonl").open("a") as file:
        file.write('nonsense\n{"id":"torn')
    assert main([str(tmp_path / "run"), "--format", "csv", "-o", str(tmp_path / "a.csv")]) == 0
    assert "3 damaged lines (line 5: trial is -1; line 6: not JSON; line 4: reward is 7), passed over" in (
        capsys.readouterr().err
    )
    rows = [line.split(",")[:6] for line in (tmp_path / "a.csv").read_text().splitlines()[1:]]
    assert [(row[0], row[5]) for row in rows] == [
        (f"{one['domain']}/{one['task_id']}", "0.0"),
        (f"{two['domain']}/{two['task_id']}", "1.0"),
    ]


def test_a_sweeps_directory_is_all_its_runs(run_dir: Path, tmp_path: Path) -> None:
    for name in ("0", "1"):
        write_records(tmp_path / "sweep" / name, records(run_dir)[:3])
    assert main([str(tmp_path / "sweep"), "--format", "csv", "-o", str(tmp_path / "a.csv")]) == 0
    assert [line.split(",")[0] for line in (tmp_path / "a.csv").read_text().splitlines()] == ["run", *"000111"]


def test_a_run_that_a_link_leads_to_as_well_is_one(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "sweep" / "0", records(run_dir)[:3])
    (tmp_path / "sweep" / "latest").symlink_to("0")
    assert main([str(tmp_path / "sweep"), "--format", "csv", "-o", str(tmp_path / "a.csv")]) == 0
    assert capsys.readouterr().out.startswith("3 rows\n")
    assert (tmp_path / "a.csv").read_text().startswith("id,")


@pytest.mark.parametrize("form", ["csv", "parquet", "sft", "inspect"])
def test_a_directory_may_have_a_name_that_is_no_utf_8(run_dir: Path, tmp_path: Path, form: str) -> None:
    directory = tmp_path / os.fsdecode(b"odd\xff")
    write_records(directory, records(run_dir)[:3])
    assert main([str(directory), "--format", form, *(["--all"] if form == "sft" else [])]) == 0
    written = [path for path in (directory / "export").rglob("*") if path.suffix in (".parquet", ".jsonl")]
    assert all(b"odd\\xff" in path.read_bytes() or b"odd\\\\xff" in path.read_bytes() for path in written)


def test_a_link_as_target_stays_and_what_it_leads_to_is_replaced(run_dir: Path, tmp_path: Path) -> None:
    for form, option in (("sft", "--all"), ("csv", "--table=calls")):
        link = tmp_path / "link" / form
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(tmp_path / "real" / form)
        for _ in range(3):
            assert main([str(run_dir), "--format", form, "-o", str(link), "--force", option]) == 0
        assert link.is_symlink()
    assert sorted(one.name for one in (tmp_path / "real").iterdir()) == ["csv", "sft"]
    assert [one.name for one in (tmp_path / "link").iterdir() if not one.is_symlink()] == []


def test_the_working_directory_is_not_replaced(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (".", "", str(tmp_path)):
        assert main([str(run_dir), "--format", "sft", "--all", "-o", given, "--force"]) == 1
        assert "is the working directory" in capsys.readouterr().err


def test_a_reward_that_is_no_number_is_told_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["DIR", "--format", "csv", "--min-reward", "all"])
    assert "--min-reward: 'all' is no number" in capsys.readouterr().err


def test_copies_of_a_run_and_domains_alike_by_name_have_a_log_each(run_dir: Path, tmp_path: Path) -> None:
    one, two = records(run_dir)[:2]
    for place in ("a/run", "b/run"):
        write_records(tmp_path / place, [{**one, "domain": "x.y"}, {**two, "domain": "x-y"}])
        (tmp_path / place / "summary.json").write_text('{"run_id": "1", "started": "2026-01-01T00:00:00"}')
    given = [str(tmp_path / place) for place in ("a", "b")]
    assert main([*given, "--format", "inspect", "-o", str(tmp_path / "logs")]) == 0
    logs = [*(tmp_path / "logs").glob("*.eval")]
    ids = {json.loads(zipfile.ZipFile(log).read("header.json"))["eval"]["eval_id"] for log in logs}
    assert (len(logs), len(ids)) == (4, 4)


def test_a_command_line_without_a_format_is_told_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["DIR"])
    assert "error: --format is missing: csv, dpo, inspect, leaderboard, parquet, sft, or" in capsys.readouterr().err


def test_help_has_the_options_of_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in ((["--help"], "import path of a class"), (["--format", "dpo", "--help"], "--pairs N")):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert told in " ".join(capsys.readouterr().out.split())


def test_a_record_that_holds_what_no_simulation_does_is_passed_over_and_named(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = [record for record in records(run_dir) if record["trial"] == 0][:2]
    bad["calls"][0]["duration_ms"] = [1]
    bad["messages"][1]["tool_calls"] = [3]
    write_records(tmp_path / "run", [good, bad])
    for form in ("csv", "parquet", "inspect"):
        assert main([str(tmp_path / "run"), "--format", form]) == 0
        said = capsys.readouterr().err
        assert "1 damaged line (line 2: messages is a list of another form), passed over" in said, form
        assert said.count("\n") == 1
    write_records(tmp_path / "run", [{**good, "trial": -1}])
    assert main([str(tmp_path / "run"), "--format", "csv", "--force"]) == 1
    assert "holds no simulation: 1 damaged line (line 1: trial is -1)" in capsys.readouterr().err


def test_a_domains_name_leads_nowhere(run_dir: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "run", [{**records(run_dir)[0], "domain": "../../x/y"}])
    assert main([str(tmp_path / "run"), "--format", "inspect"]) == 0
    [log] = (tmp_path / "run" / "export" / "inspect").glob("*.eval")
    assert "_tau2-------x-y_" in log.name
