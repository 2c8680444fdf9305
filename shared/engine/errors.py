"""What kind of error a tool reports: the same names in the rules of a task and in the arcs of a step. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HTTP_KINDS = {401: "auth", 403: "auth", 404: "not_found", 429: "rate_limit"}
_CODE_KINDS = {
    "TIMEOUT": "timeout",
    "CONNECTION": "connection",
    "TypeError": "schema",
    "ValueError": "schema",
    "KeyError": "schema",
    "IndexError": "schema",
    "ValidationError": "schema",
    "JSONDecodeError": "parse",
    "REFERENCE_NOT_AVAILABLE": "missing_reference",
    "TEMPLATE": "template",
    "BAD_CONFIG": "config",
    "POLICY": "config",
}
_SQLSTATE_KINDS = {"40001": "db_deadlock", "40P01": "db_deadlock", "57014": "db_timeout"}
_SQLCLASS_KINDS = {"08": "db_connection", "23": "db_constraint"}


def error_members(response: Any, source: str) -> dict[str, Any]:
    """Return the members of an error: kind, retryable, code, message, source; with the HTTP status or SQLSTATE when it has one.

    Args:
        response: the output of the tool that failed, as far as there is one.
        source: kind of the tool.
    """
    response = response if isinstance(response, Mapping) else {}
    given = response.get("error")
    inner: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    code = str(response.get("code") or inner.get("code") or "ERROR")
    text = inner.get("message") or (given if isinstance(given, str) else None) or response.get("message")
    error: dict[str, Any] = {
        "kind": response.get("error_kind") or inner.get("kind"),
        "retryable": bool(response.get("retryable") or inner.get("retryable")),
        "code": code,
        "message": str(text or "Tool returned error status"),
        "source": source,
    }
    data = response.get("data")
    details: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    status = details.get("status_code") or inner.get("status_code") or response.get("status_code")
    sqlstate = details.get("sqlstate") or inner.get("sqlstate") or response.get("sqlstate")
    if sqlstate is None and code.startswith("PG_"):
        sqlstate = code.removeprefix("PG_")
    if isinstance(status, int) and not isinstance(status, bool):
        error |= {"status_code": status, "http_status": status, "status": status}
        error["retryable"] = error["retryable"] or status == 429 or status >= 500
    if sqlstate:
        error |= {"sqlstate": str(sqlstate), "pg_code": str(sqlstate)}
    if source == "python":
        error |= {"exception": code, "exception_type": code, "traceback": details.get("traceback")}
    error["kind"] = error["kind"] or _kind(code, status, sqlstate)
    return error


def _kind(code: str, status: Any, sqlstate: Any) -> str:
    if isinstance(status, int):
        return _HTTP_KINDS.get(status) or ("server_error" if status >= 500 else "client_error")
    if sqlstate:
        state = str(sqlstate)
        return _SQLSTATE_KINDS.get(state) or _SQLCLASS_KINDS.get(state[:2]) or "database"
    return _CODE_KINDS.get(code, "tool_error")
