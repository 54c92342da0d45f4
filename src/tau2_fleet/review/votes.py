"""`review_votes.jsonl`: every answer that was paid for, so that none is asked for twice, whatever ends a review."""

from __future__ import annotations

import fcntl
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tau2_fleet.errors import UserError, writing
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.record.line import SimulationKey, decode_line, encode_line
from tau2_fleet.regular import lines_of, open_file
from tau2_fleet.telemetry.secrets import record_redactor

VOTES_FILE = "review_votes.jsonl"


@dataclass(frozen=True, slots=True)
class ReviewAnswer:
    """One answer as it came."""

    text: str
    cost_usd: float
    model: str


def digest_of(settings: ModelSettings, system: str, question: str, vote: int, attempt: int) -> str:
    """What an answer is known by: the model and its sampling, the words it was asked in, and which vote it is."""
    asked = (
        settings.provider, settings.model, settings.base_url, settings.temperature, settings.top_p,
        settings.max_output_tokens, settings.reasoning_effort, settings.extra_body, settings.api,
        system, question, vote, attempt,
    )  # fmt: skip
    return hashlib.sha256(encode_line([str(part) for part in asked])).hexdigest()


class VoteFile:
    """The answers of a run directory: read once, then appended to, each line whole and written at once."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / VOTES_FILE
        self._answers: dict[str, ReviewAnswer] = {}
        self.spent_usd = 0.0
        """By all of them together."""
        with writing(self.path):
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._hold()
        self._read()
        if self._is_torn():
            os.write(self._file, b"\n")

    def __enter__(self) -> VoteFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def get(self, digest: str) -> ReviewAnswer | None:
        """An answer that was had before."""
        return self._answers.get(digest)

    def add(self, digest: str, key: SimulationKey, vote: int, answer: ReviewAnswer) -> None:
        """Keep an answer.

        Raises:
            UserError: it cannot be written.
        """
        line = encode_line(
            {
                "digest": digest, "domain": key.domain, "task_id": key.task_id, "trial": key.trial, "vote": vote,
                "model": answer.model, "cost_usd": answer.cost_usd, "answer": answer.text,
            }
        )  # fmt: skip
        with writing(self.path):
            os.write(self._file, record_redactor.redact_bytes(line))
        self._answers[digest] = answer
        self.spent_usd += answer.cost_usd

    def _hold(self) -> None:
        """One review of a directory at a time: two would pay for the same answers.

        Raises:
            UserError: there is another one.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise UserError(f"{self.path.parent}: another review of it is going on; wait for its end") from None
        except OSError:
            return  # a file system without locks

    def _read(self) -> None:
        try:
            with open_file(self.path) as file:
                for line in lines_of(file):
                    self._take(line)
        except FileNotFoundError:
            return
        except OSError as error:
            with writing(self.path):
                raise error

    def _take(self, line: bytes) -> None:
        """A line's answer; one that is damaged, or was torn by a kill, is no answer."""
        try:
            value = decode_line(line)
            answer = ReviewAnswer(value["answer"], float(value["cost_usd"]), str(value.get("model") or ""))
            if not isinstance(answer.text, str) or not 0 <= answer.cost_usd < float("inf"):
                return
            digest = str(value["digest"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        self._answers[digest] = answer
        self.spent_usd += answer.cost_usd

    def _is_torn(self) -> bool:
        """Whether the last line has no break, so that the next one would be lost with it."""
        with open_file(self.path) as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
