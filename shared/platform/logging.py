"""Log lines of every service: one JSON object per line, or text for people. Extras such as `execution_id` become keys.

Nothing here looks into payloads: callers pass ids, counts and names, never inputs, outputs or headers, so no secret gets in.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

import orjson

TEXT_MAX = 4000  # characters of one message or traceback in a log line

# What every line of a request says: who calls. Set anew by each request, so nothing of an earlier one is left.
LOG_FIELDS: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=MappingProxyType({}))

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_QUIET = ("aiohttp.access", "asyncio", "nats")


def _extras(record: logging.LogRecord) -> dict[str, object]:
    given = {key: value for key, value in record.__dict__.items() if key not in _STANDARD and not key.startswith("_")}
    return {**LOG_FIELDS.get(), **given}


class JsonFormatter(logging.Formatter):
    """One JSON object per record."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage()[:TEXT_MAX],
            **_extras(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-TEXT_MAX:]
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class TextFormatter(logging.Formatter):
    """`12:00:00.000 INFO message key=value`, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
        line = f"{moment} {record.levelname:<7} {record.getMessage()[:TEXT_MAX]}{extras}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)[-TEXT_MAX:]
        return line


def configure_logging(service: str, level: str, fmt: Literal["json", "text"]) -> None:
    """Send every log line of this process to stderr in `fmt`, from `level` up. Replaces what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if fmt == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
