"""What a dead server's log means: the telling lines, and what to do about it. The supervisor asks."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINES_SHOWN = 3
_TAIL_SHOWN = 6
_LINE_WIDTH = 600
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PREFIX = re.compile(
    r"^(\(?[\w:= -]{0,40}pid=\d+\)?\s*)?((INFO|WARNING|ERROR|DEBUG)\s+[\d-]+\s+[\d:.]+\s+\[[^\]]*\]\s*)?"
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a server did not start."""

    cause: str
    """For people; empty when the log holds nothing known."""
    lines: tuple[str, ...]
    """The telling lines of the log."""
    final: bool
    """Whether it would fail again in the same way: no use in another try."""


@dataclass(frozen=True, slots=True)
class _Sign:
    pattern: re.Pattern[str]
    cause: str
    final: bool = True


def _sign(pattern: str, cause: str, final: bool = True) -> _Sign:
    return _Sign(re.compile(pattern), cause, final)


_SIGNS = (
    _sign(r"unrecognized arguments|error: argument |invalid choice: |ambiguous option|expected (one|at least one) arg",
          "vllm does not take these flags: mend extra_args"),
    _sign(r"invalid tool call parser|(?i:tool.?(call )?parser.{0,40}not (found|registered))",
          "this vLLM has no such tool-call parser: mend tool_call_parser"),
    _sign(r"tool-call-parser \S+ cannot be used|ToolParser could not locate",
          "this tool-call parser does not suit the model: mend tool_call_parser"),
    _sign(r"Address already in use|\[Errno 98\]",
          "the port was taken meanwhile: set server.start_port to another range", final=False),
    _sign(r"[Uu]ser-specified max_model_len .* is greater than the derived|is greater than the derived max_model_len",
          "--max-model-len is more than the model has: lower it in extra_args"),
    _sign(r"larger than the (available KV cache memory|maximum number of tokens that can be stored in KV cache)"
          r"|is needed, which is larger than|[Mm]aximum number of tokens .* KV cache|max seq len .* is larger",
          "the context is too long for the memory: lower --max-model-len in extra_args or give the cache more"),
    _sign(r"less than requested memory for kv|No available memory for the cache blocks"
          r"|(?i:(not enough|insufficient).{0,60}(kv|cache))"
          r"|(?i:kv cache).{0,80}(?i:too (small|big|large)|exceed|not enough|insufficient)",
          "the KV cache does not fit the memory: change --gpu-memory-utilization, --kv-cache-memory-bytes or "
          "--max-model-len in extra_args"),
    _sign(r"Free memory on device .* is less than desired|Error in memory profiling",
          "the GPU's memory is in use by others: choose other server.gpu_ids or lower --gpu-memory-utilization",
          final=False),
    _sign(r"CUDA out of memory|OutOfMemoryError|HIP out of memory|std::bad_alloc|Cannot allocate memory|MemoryError"
          r"|DefaultCPUAllocator: (can't|not enough)",
          "out of memory: a smaller model, more tensor_parallel_size, or a lower --max-model-len in extra_args"),
    _sign(r"HFValidationError|Repo id must be in the form|is not a local folder and is not a valid model identifier"
          r"|RepositoryNotFoundError|does not appear to have a file named config\.json|[Nn]o such file.*config\.json"
          r"|Invalid repository ID or local directory",
          "the model is not there: give a checkpoint's path or a hub id"),
    _sign(r"LocalEntryNotFoundError|Cannot find .* in the (local|cached) .*outgoing traffic|OfflineModeIsEnabled",
          "the model is not in the cache and the hub cannot be reached"),
    _sign(r"GatedRepoError|401 Client Error|403 Client Error|Access to model .* is restricted",
          "the hub refuses the model: ask for access and set HF_TOKEN"),
    _sign(r"Model architectures? \[?.*(not supported|failed to be inspected)|are not supported for now",
          "this vLLM does not know the model's architecture: a newer vLLM in server.executable"),
    _sign(r"chat template.*(not exist|appears path-like|[Nn]ot found)|invalid or unreadable chat template"
          r"|supplied chat template",
          "the chat template cannot be read: mend chat_template"),
    _sign(r"must be divisible by tensor parallel size|divisible by tp|World size .* is larger than the number of "
          r"available GPUs",
          "tensor_parallel_size does not suit this model or machine"),
    _sign(r"No space left on device", "the disk is full"),
    _sign(r"(No CUDA GPUs are available|Failed to infer device type|CUDA driver version is insufficient"
          r"|NVIDIA driver .* (too old|not))",
          "vLLM finds no GPU it can use: server.device=cpu needs a CPU build"),
    _sign(r"^gate: cannot run |^sh: .*(not found|Permission denied)|exec format error|ModuleNotFoundError"
          r"|ImportError: ",
          "the server program itself does not run: mend its environment (tau2-fleet doctor)"),
)  # fmt: skip


def diagnose(log: str, status: int | None) -> Diagnosis:
    """Find the cause of a failed start in the server's log.

    Args:
        log: what the server wrote.
        status: its exit status; None when it lived but did not become ready.
    """
    lines = [_clean(line) for line in log.splitlines()]
    for sign in _SIGNS:
        hits = [line for line in lines if sign.pattern.search(line)]
        if hits:
            return Diagnosis(sign.cause, tuple(_distinct(hits)[:_LINES_SHOWN]), sign.final)
    if status == -9:
        return Diagnosis("it was killed (out of the machine's memory?)", _tail(lines), final=False)
    quiet = [_clean(line) for line in log.splitlines() if "WARNING" not in line]
    errors = [line for line in quiet if re.search(r"\b\w*(Error|Exception): \S", line)]
    return Diagnosis("", tuple(_distinct(errors)[-_LINES_SHOWN:]) or _tail(lines), final=False)


def _clean(line: str) -> str:
    line = _PREFIX.sub("", _ANSI.sub("", line)).strip()
    return line if len(line) <= _LINE_WIDTH else line[: _LINE_WIDTH - 3] + "..."


def _distinct(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(lines))


def _tail(lines: list[str]) -> tuple[str, ...]:
    return tuple([line for line in lines if line][-_TAIL_SHOWN:])
