"""Results by reference: what a template sees of them, and how it reaches into what is not in memory.

The engine does no I/O. A template that needs data which only the result store has raises `NeedsDataError`; the caller loads it
and decides again with `loaded(...)` around the call. Every attempt is pure, so repeating it is free of effects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_MISSING = object()
_loaded: ContextVar[Mapping[str, Any] | None] = ContextVar("loaded", default=None)


class NeedsDataError(Exception):
    """Data behind a reference is needed; `locator` says which."""

    def __init__(self, locator: str) -> None:
        super().__init__(f"data of {locator} is needed")
        self.locator = locator


class LostDataError(Exception):
    """A reference whose data is gone: deleted or expired. No `LookupError`: templates would take it for undefined."""


class _Lost:
    """Stands for data that could not be loaded."""


LOST = _Lost()


@contextmanager
def loaded(data: Mapping[str, Any]) -> Iterator[None]:
    """Let templates reach into `data` by locator (`LOST` when it is gone) while the block runs."""
    token = _loaded.set(data)
    try:
        yield
    finally:
        _loaded.reset(token)


class ResultRef(dict[str, Any]):
    """A result that is stored elsewhere: its scalars, `reference` and `_ref` are here, all else is loaded when it is used."""

    @property
    def locator(self) -> str:
        """Return the name under which the result store has the data."""
        return str(self.get("_ref") or "")

    def resolved(self) -> Any:
        """Return the whole data.

        Raises:
            NeedsDataError: it has not been loaded.
            LostDataError: it is gone.
        """
        data = _loaded.get()
        value = _MISSING if data is None else data.get(self.locator, _MISSING)
        if value is _MISSING:
            raise NeedsDataError(self.locator)
        if value is LOST:
            raise LostDataError(f"the stored result {self.locator} does not exist or has expired")
        reference = self.get("reference")
        wrapped = isinstance(reference, Mapping) and reference.get("kind") == "result_ref"  # by the Rust line
        if wrapped and isinstance(value, Mapping) and {"status", "data"} <= value.keys():
            return value["data"]
        return value

    def __missing__(self, key: str | int) -> Any:
        value = self.resolved()
        if isinstance(value, Mapping) and key in value:
            return value[key]
        if isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            return value[key]
        if key in ("data", "result"):
            return value["results"] if is_loop_result(value) else value
        raise KeyError(key)


class TextObject(dict[str, Any]):
    """An object that is a text for whoever does not ask for its members: a lone expression gives the text."""


class StepResult(dict[str, Any]):
    """A step's output as templates see it: `.data` is itself unless it has such a key; of a loop, the list of results."""

    def __missing__(self, key: str) -> Any:
        if key in ("data", "result"):
            return self["results"] if is_loop_result(self) else self
        raise KeyError(key)


def is_loop_result(value: Any) -> bool:
    """Return whether `value` is the result of a loop: results by index, and their counts."""
    return isinstance(value, Mapping) and "stats" in value and "results" in value and set(value) <= _LOOP_KEYS


_LOOP_KEYS = frozenset({"results", "stats", "context"})


def reference_of(value: Any) -> ResultRef | None:
    """Return `value` as a reference when it is one: by this process, or as JSON from a log or a command."""
    if isinstance(value, ResultRef):
        return value
    if (
        isinstance(value, Mapping)
        and isinstance(value.get("_ref"), str)
        and isinstance(value.get("reference"), Mapping)
    ):
        return ResultRef(value)
    return None


def result_ref(reference: Mapping[str, Any], scalars: Mapping[str, Any]) -> ResultRef:
    """Return a reference that templates can use, from the `reference` of an event and the scalars beside it."""
    locator = str(reference.get("locator") or reference.get("ref") or "")
    return ResultRef({**scalars, "reference": dict(reference), "_ref": locator, "ref": locator})


def as_result(value: Any) -> Any:
    """Return a step's output as templates see it; with the original's `context` alias."""
    if isinstance(value, ResultRef | StepResult) or not isinstance(value, Mapping):
        return value
    return StepResult(value if "context" in value else {**value, "context": dict(value)})
