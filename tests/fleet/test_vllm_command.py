"""The command lines of servers: flags of the version at hand, the user's flags first, hub or path."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.hub import is_on_hub
from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.server_kind import Placement, PoolSpec
from tau2_fleet.fleet.vllm_command import FlagBook, is_cpu_build, parse_flags, python_of, vllm_command, vllm_environment

SPEC = PoolSpec("agent", Vllm(), model="org/model", tool_call_parser="hermes")
OLD_HELP = """usage: vllm serve [model_tag] [options]

options:
  -h, --help            show this help message and exit
  --host HOST           Host name. (default: None)
  --port PORT
  --served-model-name SERVED_MODEL_NAME [SERVED_MODEL_NAME ...]
                        Not to be confused with --ghost, which is only spoken of.
  --tensor-parallel-size TENSOR_PARALLEL_SIZE, -tp TENSOR_PARALLEL_SIZE
  --enable-auto-tool-choice
  --tool-call-parser {hermes,llama3_json}
  --enable-prompt-tokens-details
"""
OLD = parse_flags(OLD_HELP)
NEW = OLD | {
    "--disable-uvicorn-access-log", "--no-enable-chunked-prefill", "--kv-cache-memory-bytes", "--chat-template",
}  # fmt: skip


def command(spec: PoolSpec, flags: frozenset[str] = NEW, cpu: bool = False) -> list[str]:
    return vllm_command("/bin/vllm", Placement(spec, 0, 1900, ()), "127.0.0.1", 1900, flags, cpu)


def test_only_flags_that_this_vllm_knows_are_given() -> None:
    start = ["/bin/vllm", "serve", "org/model", "--host", "127.0.0.1", "--port", "1900", "--enable-auto-tool-choice"]
    old = [*start, "--tool-call-parser", "hermes", "--enable-prompt-tokens-details"]
    assert command(SPEC, OLD) == old
    assert command(SPEC, OLD, cpu=True) == old
    assert command(SPEC) == [*old, "--disable-uvicorn-access-log"]


def test_replicas_on_one_gpu_have_its_memory_together_unless_the_user_says_how() -> None:
    flags = NEW | {"--gpu-memory-utilization"}
    shared = Placement(SPEC, 0, 1900, ("0",), sharing=3)
    words = vllm_command("/bin/vllm", shared, "127.0.0.1", 1900, flags, False)
    assert words[words.index("--gpu-memory-utilization") + 1] == "0.300"
    assert "--gpu-memory-utilization" not in command(SPEC, flags)
    own = replace(shared, pool=replace(SPEC, extra_args="--gpu-memory-utilization 0.2"))
    assert vllm_command("/bin/vllm", own, "127.0.0.1", 1900, flags, False)[-2:] == ["--gpu-memory-utilization", "0.2"]


def test_flags_are_read_from_the_lines_that_list_them() -> None:
    assert "--ghost" not in OLD
    assert "--tensor-parallel-size" in OLD
    assert parse_flags("Run `vllm serve --help=all` to see --served-model-name") == frozenset()


def test_flags_of_the_user_take_the_place_of_ours() -> None:
    spec = replace(
        SPEC,
        tensor_parallel_size=2,
        chat_template="t.jinja",
        extra_args="--tool_call_parser=mistral -tp 4 --enable-chunked-prefill --kv-cache-memory-bytes 64M --note 'a b'",
    )
    words = command(spec, cpu=True)
    assert words[-8:] == [
        "--tool_call_parser=mistral", "-tp", "4", "--enable-chunked-prefill", "--kv-cache-memory-bytes", "64M",
        "--note", "a b",
    ]  # fmt: skip
    ours = words[:-8]
    assert not {"--tool-call-parser", "--tensor-parallel-size", "--no-enable-chunked-prefill"} & set(ours)
    assert "--kv-cache-memory-bytes" not in ours
    assert ours[-4:] == ["--chat-template", "t.jinja", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]


def test_a_cpu_gets_what_it_cannot_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.delenv(name, raising=False)
    assert command(SPEC, cpu=True)[-3:] == ["--no-enable-chunked-prefill", "--kv-cache-memory-bytes", "1G"]
    environment = vllm_environment((), True, NEW)
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment
    assert vllm_environment((), True, OLD)["VLLM_CPU_KVCACHE_SPACE"] == "1"
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "8")
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert "--kv-cache-memory-bytes" not in command(SPEC, cpu=True)
    assert vllm_environment((), True, OLD)["OMP_NUM_THREADS"] == "6"


def test_gpus_are_given_by_their_pci_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    environment = vllm_environment(("2", "3"), False, NEW)
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_what_a_vllm_knows_is_kept_until_it_changes(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    book = FlagBook(tmp_path / "cache")
    assert book.read(str(program)) is None
    book.write(str(program), OLD)
    assert book.read(str(program)) == OLD
    os.utime(program, (1, 1))
    assert book.read(str(program)) is None


def test_the_python_of_a_console_script_is_found(tmp_path: Path) -> None:
    script = tmp_path / "vllm"
    script.write_text(f"#!{sys.executable}\n")
    assert python_of(str(script)) == sys.executable
    script.write_text("#!/bin/sh\n")
    beside = tmp_path / "python"
    beside.symlink_to(sys.executable)
    assert python_of(str(script)) == str(beside)


def test_a_cpu_build_is_known_by_its_distribution(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.touch()
    assert not is_cpu_build(str(program))
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (packages / "vllm-0.32.0.dist-info").mkdir(parents=True)
    assert not is_cpu_build(str(program))
    (packages / "vllm-0.32.0+cpu.dist-info").mkdir()
    assert is_cpu_build(str(program))


def test_a_model_is_a_directory_here_or_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "org" / "model" / "config.json").touch()
    assert is_on_hub("Qwen/Qwen3-8B", "agent.model")
    assert is_on_hub("gpt2", "agent.model")
    assert not is_on_hub("org/model", "agent.model")
    assert not is_on_hub("s3://bucket/a/model", "agent.model")
    for missing in ("/no/such/dir", "./nothing", "~/nothing", "a/b/c", "checkpoints/"):
        with pytest.raises(UserError, match=rf"agent\.model={missing}: there is no such directory"):
            is_on_hub(missing, "agent.model")
    with pytest.raises(UserError, match="holds no model"):
        is_on_hub("empty", "agent.model")
