"""What happens before Hydra sees the command line: the checkout's `.env`, and flags that do not exist."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dotenv import dotenv_values

from src.config.names import did_you_mean, nearest_keys
from src.errors import UserError
from src.telemetry.secrets import protect_environment

ROOT = Path(__file__).resolve().parents[2]

_HYDRA_FLAGS = (
    "-h -c -p -r -m -sc -cp -cn -cd -i "
    "--help --hydra-help --version --cfg --resolve --package --run --multirun --shell-completion --config-path "
    "--config-name --config-dir --experimental-rerun --info"
)


def read_dotenv(folder: Path = ROOT) -> None:
    """Take what the environment lacks from the checkout's own `.env`, and keep all keys out of what is written.

    Raises:
        UserError: the file is there and cannot be read.
    """
    path = folder / ".env"
    try:
        values = dotenv_values(path, interpolate=False) if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__})") from None
    for name, value in values.items():
        if value:
            os.environ.setdefault(name, value)
    protect_environment()


def known_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments as they are.

    Raises:
        UserError: one is a flag that neither Hydra nor this program has (the original scripts had many).
    """
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("-") and flag not in _HYDRA_FLAGS.split():
            name = flag.lstrip("-").replace("-", "_")
            keys = nearest_keys(name) or nearest_keys(name.replace("_", "."))
            hint = did_you_mean([f"{key}=..." for key in keys])
            raise UserError(f"{flag}: settings are key=value.{hint} README.md has the table of old flags and new keys.")
    return list(arguments)
