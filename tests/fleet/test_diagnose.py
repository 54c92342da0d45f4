"""What logs of servers that did not start are taken to mean; the lines are vLLM's, from provoked failures."""

from __future__ import annotations

import pytest

from tau2_fleet.fleet.diagnose import diagnose
from tau2_fleet.fleet.sampler import ReplicaMetrics, next_period_s, parse_metrics
from tau2_fleet.llm.markup import find_markup

NOISE = "INFO 11-22 15:00:00 [api_server.py:1] vLLM API server version 0.32.0\n"
TAIL = "\n/usr/lib/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked objects\n"


@pytest.mark.parametrize(
    ("line", "cause", "final"),
    [
        ("vllm: error: unrecognized arguments: --no-such-flag", "does not take these flags", True),
        ("OSError: [Errno 98] Address already in use", "port was taken meanwhile", False),
        ("huggingface_hub.errors.HFValidationError: Repo id must be in the form 'name'", "model is not there", True),
        ("huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate", "hub cannot be reached", True),
        (
            "  Value error, User-specified max_model_len (99999999) is greater than the derived max_model_len "
            "(max_position_embeddings=32768)",
            "--max-model-len is more than the model has",
            True,
        ),
        (
            "ValueError: To serve at least one request with the models's max seq len (32768), (3.5 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (0.02 GiB).",
            "context is too long for the memory",
            True,
        ),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory`", "KV cache", True),
        (
            "ValueError: Available memory on node 0 (7.98/10.71 GiB) on kv cache allocation is less than requested "
            "memory for kv (900.0 GiB). Decrease --kv-cache-memory-bytes",
            "KV cache does not fit the memory",
            True,
        ),
        ("KeyError: 'invalid tool call parser: nonsense (chose from { hermes })'", "no such tool-call parser", True),
        (
            "TypeError: --tool-call-parser llama3_json cannot be used with the tokenizer of '/ckpt'",
            "does not suit the model",
            True,
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory", True),
        (
            "ValueError: Free memory on device (2.1/139.8 GiB) on startup is less than desired GPU memory utilization",
            "in use by others",
            False,
        ),
        ("RuntimeError: Failed to infer device type", "no GPU it can use", True),
        ("OSError: [Errno 28] No space left on device", "disk is full", True),
        ("sh: 1: exec: /opt/vllm: Permission denied", "does not run", True),
        ("gate: cannot run /opt/vllm: Permission denied", "does not run", True),
    ],
)  # fmt: skip
def test_known_failures_are_named_with_their_line(line: str, cause: str, final: bool) -> None:
    found = diagnose(f"{NOISE}\x1b[31m(APIServer pid=12)\x1b[0m ERROR 11-22 15:00:01 [core.py:5] {line}{TAIL}", 1)
    assert cause in found.cause
    assert found.lines == (line.strip(),)
    assert found.final is final


def test_an_unknown_failure_shows_its_errors_and_is_tried_again() -> None:
    warning = "WARNING 11-22 15:00:00 [a.py:1] may cause `OSError: [Errno 24] Too many open files`\n"
    found = diagnose(
        f"{NOISE}{warning}Traceback (most recent call last):\n  File x\nRuntimeError: the sky fell{TAIL}", 1
    )
    assert found.cause == ""
    assert found.lines == ("RuntimeError: the sky fell",)
    assert not found.final


def test_without_an_error_the_end_of_the_log_is_shown() -> None:
    found = diagnose("\n".join(f"line {number}" for number in range(20)), 3)
    assert found.lines[-1] == "line 19"
    assert len(found.lines) == 6
    assert diagnose("", -9).cause.startswith("it was killed")


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "x"}', "<function=get_weather>", '[TOOL_CALLS][{"name"', "<|python_tag|>{",
        "</tool_call>", "<｜tool▁calls▁begin｜>", 'functools[{"name"', "<|tool_calls_section_begin|>",
    ],
)  # fmt: skip
def test_markup_of_every_kind_of_model_is_recognised(text: str) -> None:
    assert find_markup(f"Let me see. {text}")


@pytest.mark.parametrize("text", ["It is 18 degrees.", "if a < b and function(x) [1]", "I made a tool call.", ""])
def test_plain_text_is_not_markup(text: str) -> None:
    assert find_markup(text) is None


def test_metrics_of_new_and_old_versions_are_read() -> None:
    new = """# HELP vllm:num_requests_running Number of requests
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.4
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1.5e+06
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 1.2e+06
vllm:prompt_tokens_total{engine="0",model_name="m"} 100.0
vllm:prompt_tokens_cached_total{engine="0",model_name="m"} 60.0
vllm:generation_tokens_total{engine="0",model_name="m"} 50.0
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:num_preemptions_total{engine="0",model_name="m"} 5.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="2000",num_cpu_blocks="7"} 1.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="1",num_gpu_blocks="2000"} 1.0
vllm:cache_config_info{block_size="16",engine="2",num_gpu_blocks="None"} 1.0
"""
    found = parse_metrics(new)
    assert found.kv_use == pytest.approx(0.3)
    assert (found.running, found.waiting, found.prefix_queries, found.prefix_hits) == (7.0, 1.0, 1.5e6, 1.2e6)
    assert (found.prompt_tokens, found.generation_tokens) == (100.0, 50.0)
    assert (found.preemptions, found.kv_tokens) == (5.0, 32_000.0)
    old = 'vllm:gpu_cache_usage_perc{model_name="m"} 0.5\nvllm:gpu_prefix_cache_queries_total{model_name="m"} 8.0\n'
    assert parse_metrics(old) == ReplicaMetrics(kv_use=0.5, prefix_queries=8.0)
    assert parse_metrics("") == ReplicaMetrics()


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        ('block_size="16",hash_block_size="64",mamba_block_size="32768",num_gpu_blocks="100"', 1600.0),
        ('block_size="784",kv_cache_size_tokens="428144",mamba_block_size="784",num_gpu_blocks="900"', 428_144.0),
        ('block_size="16",kv_cache_size_tokens="None",num_gpu_blocks="100",num_gpu_blocks_override="9"', 1600.0),
    ],
)
def test_the_room_of_the_cache_is_what_vllm_itself_says_of_each_engine(labels: str, tokens: float):
    lines = [f'vllm:cache_config_info{{{labels},engine="{engine}"}} 1.0' for engine in range(2)]
    assert parse_metrics(lines[0]).kv_tokens == tokens
    together = 2 if "428144" in labels else 1  # the blocks are those of both
    assert parse_metrics("\n".join(lines)).kv_tokens == together * tokens


def test_metrics_are_read_every_second_while_they_move_and_every_five_when_they_stand_still():
    still, more, fuller = ReplicaMetrics(running=40), ReplicaMetrics(running=50), ReplicaMetrics(running=40, kv_use=0.1)
    for moved in (more, fuller, ReplicaMetrics(running=40, preemptions=1)):
        assert next_period_s(5.0, {"a": still}, {"a": moved}) == 1.0
    assert next_period_s(5.0, {}, {"a": still}) == 1.0
    period_s, slower = 1.0, []
    for _ in range(6):
        period_s = next_period_s(period_s, {"a": still}, {"a": ReplicaMetrics(running=41, prompt_tokens=9.0)})
        slower.append(period_s)
    assert slower == sorted(slower)
    assert slower[-1] == 5.0
    many = {str(number): more for number in range(48)}
    assert next_period_s(5.0, {}, many) == 3.0
