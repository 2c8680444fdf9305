"""What every tool gets, gives and raises."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from services.worker.limits import ERROR_MESSAGE_MAX_CHARS, TOOL_SECONDS_MAX
from shared.wire.types import parse_id

if TYPE_CHECKING:
    import aiohttp

    from services.worker.api import WorkerApi
    from services.worker.python_pool import PythonPool
    from services.worker.tools.concurrency import ToolLimits
    from services.worker.tools.credentials import Credentials
    from services.worker.tools.oauth import Tokens
    from services.worker.tools.postgres import PostgresPools
    from shared.messaging.user_nats import UserNats
    from shared.platform.settings import WorkerSettings

T = TypeVar("T")

# What a child process inherits. Nothing else: the worker's own environment has tokens and connection strings.
_INHERITED = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "SHELL",
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
    }
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
)


class ToolError(Exception):
    """A tool failed.

    Attributes:
        kind: tool kind, or `worker` when no tool was reached.
        code: short name of what happened: an exception's class, `HTTP_404`, `EXIT_2`, `TIMEOUT`.
        retryable: whether the same call may succeed later.
        data: partial output, kept in the event.
    """

    def __init__(
        self, kind: str, code: str, message: str, *, retryable: bool = False, data: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.kind, self.code, self.retryable = kind, code, retryable
        self.message = (message or code)[:ERROR_MESSAGE_MAX_CHARS]
        self.data = dict(data) if data else None

    def to_response(self) -> dict[str, Any]:
        """Return the tool output of a failure: the original's `status` and `error`, and what retries look at."""
        response: dict[str, Any] = {
            "status": "error",
            "error": self.message,
            "kind": self.kind,
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
        }
        if self.data is not None:
            response["data"] = self.data
        return response


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call: the tool's own keys with templates rendered, its input, and the names that templates could see.

    `secrets` and `credentials` are filled by the tool: what must not be in its output, and the names of the credentials from
    which it comes. `execution_id` is 0 when
    only `context` has it. While a tool only waits, inside `idle()`, the worker may take another command.
    """

    kind: str
    step: str
    config: Mapping[str, Any]
    input: Mapping[str, Any]
    context: Mapping[str, Any]
    timeout_seconds: float
    execution_id: int = 0
    secrets: set[str] = field(default_factory=set)
    credentials: set[str] = field(default_factory=set)
    idle: Callable[[], AbstractAsyncContextManager[None]] = nullcontext

    @property
    def execution(self) -> int:
        """Return the id of the execution, 0 when nothing says it."""
        return self.execution_id or parse_id(self.context.get("execution_id")) or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolBox:
    """What tools share: one HTTP session, the python children, the output limit (bytes), and what needs settings or the API.

    `None` is a worker without that part, as in tests; `part()` turns its absence into a clear error.
    """

    session: aiohttp.ClientSession
    python: PythonPool
    result_max_bytes: int
    settings: WorkerSettings | None = None
    api: WorkerApi | None = None
    credentials: Credentials | None = None
    postgres: PostgresPools | None = None
    limits: ToolLimits | None = None
    tokens: Tokens | None = None
    nats: UserNats | None = None


def is_true(value: object) -> bool:
    """Whether a flag that may come as text is set."""
    return value is True or str(value).lower() in ("true", "1", "yes")


def part(value: T | None, kind: str, name: str) -> T:
    """Return a part of the toolbox.

    Raises:
        ToolError: this worker runs without it.
    """
    if value is None:
        raise ToolError(kind, "NOT_AVAILABLE", f"this worker runs without {name}")
    return value


def time_limit(kind: str, config: Mapping[str, Any], default_seconds: float) -> float:
    """Return the time limit of a call (s): `timeout_seconds`, else `timeout`, else the default.

    Raises:
        ToolError: it is no positive number.
    """
    given = config.get("timeout_seconds")
    given = config.get("timeout") if given is None else given
    if given is None or given == "":
        return default_seconds
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ToolError(kind, "BAD_CONFIG", "`timeout` must be a positive number of seconds")
    return min(seconds, TOOL_SECONDS_MAX)


def environment_value(name: str) -> str | None:
    """Return a variable of the worker's own environment, which playbooks see only where settings allow it."""
    return os.environ.get(name)


def child_environment() -> dict[str, str]:
    """Return what a child process may see of the worker's environment."""
    return {key: value for key, value in os.environ.items() if key in _INHERITED or key.startswith("LC_")}
