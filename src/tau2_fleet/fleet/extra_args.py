"""Reading a string of `vllm serve` flags as the user wrote it; planning and the command builder ask it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from tau2_fleet.errors import UserError

_OURS = {
    "--host": "server.host",
    "--port": "server.start_port",
    "--api-key": "nothing: the fleet makes a key of its own, which never stands on a command line",
    "--uds": "server.host and server.start_port",
}


@dataclass(frozen=True, slots=True)
class ExtraArgs:
    """`extra_args` of a pool, split as a shell would."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, pool: str) -> ExtraArgs:
        """Split and check.

        Raises:
            UserError: unbalanced quotes, or a flag that has a key of its own.
        """
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise UserError(f"extra_args of pool {pool} cannot be read ({error}): {text}") from None
        arguments = cls(words)
        for name in arguments.names():
            if name in _OURS:
                raise UserError(f"extra_args of pool {pool}: {name} is not for extra_args, use {_OURS[name]}")
        return arguments

    def names(self) -> Iterator[str]:
        """Flags named, with dashes (vLLM takes underscores too)."""
        return (_name(word) for word in self.words if _is_flag(word))

    def has(self, *flags: str) -> bool:
        """Whether one of these flags is given (`--x` also answers for `--no-x` and `--x.key`)."""
        wanted = {flag.removeprefix("--no-").removeprefix("--") for flag in flags}
        return any(name.removeprefix("--no-").removeprefix("--").partition(".")[0] in wanted for name in self.names())

    def value(self, *flags: str) -> str | None:
        """The value of the last of these flags that is given."""
        found = None
        for position, word in enumerate(self.words):
            if not _is_flag(word) or _name(word) not in flags:
                continue
            _, equals, inline = word.partition("=")
            if equals:
                found = inline
            elif position + 1 < len(self.words):
                found = self.words[position + 1]
        return found

    def number(self, *flags: str) -> int | None:
        """The same as a whole number; None when absent or not one (the server will say so)."""
        text = self.value(*flags)
        return int(text) if text is not None and text.isdigit() else None


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not word.lstrip("-")[:1].isdigit()


def _name(word: str) -> str:
    name = word.partition("=")[0]
    return name.replace("_", "-") if name.startswith("--") else name
