"""What an event says about the end of a command, in every dialect of the workers (clients.md sections 1.4 and 2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xxhash

from shared.engine.errors import error_members
from shared.engine.references import ResultRef, TextObject, result_ref
from shared.engine.state import Event

FAILURES = frozenset(
    {"call.error", "command.failed", "command.cancelled"}
)  # events that are errors, whatever they carry
_FAILED = frozenset({"error", "failed", "timeout"})
_SEQUENCE_KEYS = frozenset(
    {"_prev", "metrics"}
)  # of a task sequence's output, by the Python line; logs keep no `results`
_PREFIXES = ("ctx.", "iter.", "step.", "workload.")


def bare_key(key: str) -> str:
    """Return a `set` key without its prefix: all land in one flat map, as in the original."""
    for prefix in _PREFIXES:
        if key.startswith(prefix) and len(key) > len(prefix):
            return key[len(prefix) :]
    return key


def says_error(event: Event, response: Any) -> bool:
    """Whether the output calls itself an error, whatever the event is called."""
    status = response.get("status") if isinstance(response, Mapping) else None
    if _is_agent(response):
        return False
    if isinstance(status, str) and status.lower() in ("error", "failed"):
        return True
    result = event.result or {}
    told = [result, *(_wrapped(place) for place in (event.context, result, result.get("context")))]
    return any(place is not None and str(place.get("status", "")).lower() in _FAILED for place in told)


def _is_agent(response: Any) -> bool:
    """Whether this is the envelope of an agent, whose failure is an answer: only its event can make it an error."""
    return isinstance(response, Mapping) and "framework" in response and "entrypoint" in response


def _wrapped(value: Any) -> Mapping[str, Any] | None:
    """Return the Rust line's `result` inside a payload: `{status, context: {data, ..}}`."""
    inner = value.get("result") if isinstance(value, Mapping) else None
    is_one = isinstance(inner, Mapping) and "status" in inner and isinstance(inner.get("context"), Mapping)
    return inner if is_one else None


def command_of(event: Event) -> int | None:
    """Return the command that an event names in its meta; a name of the Rust line's that is no number stands for one."""
    value = event.meta.get("command_id")
    if value is None or isinstance(value, int):
        return value
    text = str(value)
    if text.isascii() and text.isdigit():
        return int(text)
    return (xxhash.xxh3_64_intdigest(text.encode()) >> 1) or None if text else None


def nested(values: Mapping[str, Any], *known: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `values` with keys such as `a.b` put into the mapping `a`, beside what the first of `known` has in its `a`."""
    if not any("." in key for key in values):
        return values
    found: dict[str, Any] = {}
    for key, value in values.items():
        head, *path = key.split(".")
        if not path:
            found[head] = value
            continue
        before = next((place[head] for place in (found, *known) if head in place), None)
        found[head] = _put(before, path, value)
    return found


def _put(before: Any, path: list[str], value: Any) -> dict[str, Any]:
    known = before if isinstance(before, Mapping) else {}
    head, *rest = path
    return {**known, head: _put(known.get(head), rest, value) if rest else value}


def response_of(event: Event) -> Any:
    """Return the tool's output: `context.response`, a reference, or what a worker of the Rust line put into `result`."""
    if event.context is not None and "response" in event.context:
        return event.context["response"]
    result = event.result or {}
    context = result.get("context")
    reference = result.get("reference")
    if isinstance(reference, Mapping):
        return result_ref(reference, _scalars(context))
    if not isinstance(context, Mapping):
        return None
    inner = context.get("result")
    if isinstance(inner, Mapping) and isinstance(inner.get("context"), Mapping) and "data" in inner["context"]:
        stored = inner.get("reference")
        data = inner["context"]["data"]
        return result_ref(stored, _scalars(data)) if isinstance(stored, Mapping) else data
    if "data" in context:
        return context["data"]
    return {key: value for key, value in context.items() if key not in ("command_id", "worker_id")}


def _scalars(context: Any) -> Mapping[str, Any]:
    if not isinstance(context, Mapping):
        return {}
    data = context.get("data")
    hidden = {"command_id", "worker_id", "_ref"} | ({"data"} if isinstance(data, Mapping) and "_ref" in data else set())
    return {key: value for key, value in context.items() if key not in hidden}


def error_text(event: Event, response: Any) -> str:
    """Return why a command failed, as told by its event or its output."""
    if event.error:
        return event.error
    if isinstance(response, Mapping):
        error = response.get("error")
        if isinstance(error, Mapping):
            return str(error.get("message") or error)
        if error:
            return str(error)
    return "the command was cancelled" if event.type == "command.cancelled" else "the command failed"


class ErrorInfo(dict[str, Any]):
    """An error as templates see it: members `message`, `kind`, `code`, `retryable`; as text it is its message.

    Some playbooks print `output.error`, others ask for `output.error.kind` or whether a word is in it; all are meant.
    """

    def __str__(self) -> str:
        return str(self.get("message") or "")

    def __contains__(self, item: object) -> bool:
        return super().__contains__(item) or (isinstance(item, str) and item in str(self))

    def __eq__(self, other: object) -> bool:
        return str(self) == other if isinstance(other, str) else super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None


class ErrorText(ErrorInfo, TextObject):
    """An error that is told as text: alone it is that text, as in the original."""


def error_info(response: Any, text: str | None) -> ErrorInfo:
    """Return the error of a failed run, from what its tool answered and from `text`, what the log says."""
    given = response.get("error") if isinstance(response, Mapping) else None
    if isinstance(given, Mapping):
        return ErrorInfo({"message": text, **given})  # as its tool tells it; a sequence has classified it already
    source = str(response.get("kind") or "") if isinstance(response, Mapping) else ""
    return ErrorText({**error_members(response, source), "message": str(given or text or "")})


def _is_sequence(response: Any) -> bool:
    return isinstance(response, Mapping) and response.keys() >= _SEQUENCE_KEYS


def item_response(event: Event) -> Any:
    """Return the output that the end of a loop's item tells, as the loop's result has it."""
    response = response_of(event)
    failed = event.type in FAILURES or says_error(event, response)
    return (
        failed_output(error_text(event, response), sequence_result(response)) if failed else sequence_result(response)
    )


def failed_output(error: str, response: Any) -> Any:
    """Return the output of an item that failed; one that has none says why."""
    return {"status": "error", "error": error} if response is None else response


def sequence_variables(response: Any) -> Mapping[str, Any]:
    """Return what a task sequence has set, in either line's form; keys without prefixes."""
    if not isinstance(response, Mapping):
        return {}
    given = response.get("ctx") if _is_sequence(response) else response.get("_context_updates")
    return {bare_key(str(key)): value for key, value in given.items()} if isinstance(given, Mapping) else {}


def sequence_result(response: Any) -> Any:
    """Return a task sequence's output as templates see it: the last task's members on top, each task by its name."""
    if isinstance(response, Mapping) and "_context_updates" in response:
        labelled = {key: value for key, value in response.items() if key != "_context_updates"}
        last = next(reversed(labelled.values()), None)
        return {**(last if isinstance(last, Mapping) else {}), **labelled, "results": labelled}
    if not _is_sequence(response):
        return response
    last, tasks = response.get("_prev"), response.get("results")
    top = dict(last) if isinstance(last, Mapping) else {}
    if isinstance(tasks, Mapping):
        top.update({key: value for key, value in tasks.items() if key not in top})
    merged = {**top, **response, **({"status": top["status"]} if "status" in top else {})}
    if isinstance(response, ResultRef):  # `results` are where the rest is stored, and loaded from there
        return ResultRef({key: value for key, value in merged.items() if key != "results"})
    return merged
