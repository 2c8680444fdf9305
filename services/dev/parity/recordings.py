"""Recorded requests with their answers: `NNN_name.req.json` beside `NNN_name.resp`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

RECORDINGS_MAX = 5000  # of one directory
RECORDING_BYTES_MAX = 64 * 1024 * 1024


class RecordingError(Exception):
    """A recording cannot be read; the text names the file and what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, with the path and query as sent."""

    name: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None

    @property
    def is_read(self) -> bool:
        """Whether sending it to a live server changes nothing for certain."""
        return self.method in {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server sent; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A request and, unless its answer was kept aside, what the original answered."""

    request: Request
    answer: Answer | None


def parse_answer(raw: bytes) -> Answer:
    """Return the answer of a raw HTTP/1.1 response whose body is complete.

    Raises:
        RecordingError: it does not begin with a status line.
    """
    head, separator, body = raw.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    parts = status_line.split(" ", 2)
    if not separator or len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdigit():
        raise RecordingError("no HTTP status line")
    pairs = (line.partition(":") for line in lines)
    return Answer(status=int(parts[1]), headers={k.strip().lower(): v.strip() for k, _, v in pairs}, body=body)


def _request(file: Path, name: str) -> Request:
    if file.stat().st_size > RECORDING_BYTES_MAX:
        raise RecordingError(f"{file}: over {RECORDING_BYTES_MAX} bytes")
    try:
        data = json.loads(file.read_bytes())
        body = data.get("body")
        return Request(
            name=name,
            method=str(data["method"]).upper(),
            path=str(data["path"]),
            headers={str(key): str(value) for key, value in (data.get("headers") or {}).items()},
            body=body if isinstance(body, str | None) else json.dumps(body),
        )
    except (ValueError, KeyError, AttributeError) as error:
        raise RecordingError(f"{file}: no request with method and path ({error})") from error


def load_recordings(directory: Path) -> list[Recording]:
    """Return the recordings of `directory` in the order of their names.

    Raises:
        RecordingError: there are none or too many, or one cannot be read.
    """
    files = sorted(directory.glob("*.req.json"))
    if not files or len(files) > RECORDINGS_MAX:
        raise RecordingError(f"{directory}: {len(files)} recordings (*.req.json); 1 to {RECORDINGS_MAX} are needed")
    found: list[Recording] = []
    for file in files:
        name = file.name.removesuffix(".req.json")
        response = file.with_name(f"{name}.resp")
        answer = None
        if response.exists():
            try:
                answer = parse_answer(response.read_bytes())
            except RecordingError as error:
                raise RecordingError(f"{response}: {error}") from error
        found.append(Recording(request=_request(file, name), answer=answer))
    return found
