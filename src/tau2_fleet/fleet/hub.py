"""Where a model lies: a directory here, or the hub, from where it is downloaded once before any server starts."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.extra_args import ExtraArgs

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
_ELSEWHERE = ("s3://", "gs://", "az://", "http://", "https://")
_MARKS_OF_A_MODEL = ("config.json", "params.json")

_SCRIPT = """
import sys
from huggingface_hub import HfApi, constants, snapshot_download
model, revision, cache = (word or None for word in sys.argv[1:4])
skipped = ["original/*", "metal/*", "*.onnx", "onnx/*", "*.h5", "*.msgpack", "*.tflite", "*.ot", "*.gguf"]
if not constants.HF_HUB_OFFLINE:
    files = HfApi().list_repo_files(model, revision=revision)
    if any(name.endswith(".safetensors") for name in files):
        skipped += ["*.bin", "*.pt", "*.pth"]
print(snapshot_download(model, revision=revision, cache_dir=cache, ignore_patterns=skipped))
"""


def is_on_hub(model: str, key: str) -> bool:
    """Whether the model must come from the hub; False for a directory or file here and for remote storage.

    Args:
        key: the configuration key that names the model, for errors.

    Raises:
        UserError: it reads like a path and is none, or the directory holds no model.
    """
    path = Path(os.path.expanduser(model))
    if path.is_dir():
        if not any((path / name).exists() for name in _MARKS_OF_A_MODEL) and not any(path.glob("*.gguf")):
            raise UserError(f"{key}={model}: this directory holds no model (no config.json)")
        return False
    if path.is_file() or model.startswith(_ELSEWHERE):
        return False
    if not _HUB_ID.match(model) or model.startswith("."):
        raise UserError(f"{key}={model}: there is no such directory")
    return not os.environ.get("VLLM_USE_MODELSCOPE")


def download_command(python: str, model: str, extra: ExtraArgs) -> list[str]:
    """The program that fetches a hub model into the cache that the servers will read (HF_HOME as it is)."""
    revision = extra.value("--revision") or ""
    cache = extra.value("--download-dir") or ""
    return [python, "-c", _SCRIPT, model, revision, cache]


def download_failure(model: str, key: str, output: str, log: Path) -> UserError:
    """The error for a download that failed, from what it wrote."""
    errors = re.findall(r"^[\w.]+(?:Error|Exception).*$", output, re.MULTILINE)
    if "LocalEntryNotFound" in output or "OfflineModeIsEnabled" in output or "ConnectionError" in output:
        what = "is not a directory here, not in the hub's cache, and the hub cannot be reached"
    elif "GatedRepo" in output or "403 Client" in output:
        what = "is a gated model: ask for access on the hub and set HF_TOKEN"
    elif "RepositoryNotFound" in output or "401 Client" in output:
        what = "is neither a directory here nor a model of the hub (a private one needs HF_TOKEN)"
    elif "ModuleNotFoundError" in output:
        what = "cannot be downloaded: the environment of server.executable has no huggingface_hub"
    else:
        what = f"cannot be downloaded: {errors[-1][:200] if errors else 'see the log'}"
    return UserError(f"{key}={model} {what} (log: {log})")
