"""A baseline that is pinned: a path, or a W&B artifact that is fetched into the cache directory once."""

from __future__ import annotations

import shutil
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.paths import caches
from tau2_fleet.record.atomic import replaced
from tau2_fleet.record.reading import RECORD_FILE, SUMMARY_FILE
from tau2_fleet.record.unpacked import open_unpacked

_PREFIX = "wandb:"


def fetched(text: str) -> Path:
    """The path that is meant; an artifact (`wandb:entity/project/name:version`) is downloaded first.

    Raises:
        UserError: the artifact cannot be had, or holds neither a run directory nor one results file.
    """
    if not text.startswith(_PREFIX):
        return Path(text).expanduser()
    name = text.removeprefix(_PREFIX)
    try:
        import wandb

        artifact = wandb.Api().artifact(name)
        folder = caches() / "artifacts" / str(artifact.digest)
        artifact.download(root=str(folder))
    except ImportError:
        raise UserError(f"{text}: wandb is not installed") from None
    except Exception as error:
        raise UserError(f"{text}: cannot be had from W&B: {' '.join(str(error).split())[:200]}") from error
    _unpack(folder)
    found = [path.parent for path in folder.rglob(RECORD_FILE)]
    if not found and (folder / SUMMARY_FILE).is_file():
        raise UserError(
            f"{text}: it holds no {RECORD_FILE}: the run was logged with wandb.transcripts=false, and what is compared "
            "stays on its machine. Pin its directory by a path, or a run made with wandb.transcripts=true"
        )
    found = found or list(folder.rglob("*.json"))
    if len(found) != 1:
        raise UserError(f"{text}: expected one run directory or one results file in it, found {len(found)}")
    return found[0]


def _unpack(folder: Path) -> None:
    """Large files of a run are compressed in its artifact; what is compared is unpacked."""
    for path in (*folder.rglob(f"{RECORD_FILE}.gz"), *folder.rglob("*.json.gz")):
        target = path.with_suffix("")
        if not target.exists():
            with open_unpacked(path) as packed, replaced(target) as file:
                shutil.copyfileobj(packed, file, 1 << 20)
