"""Rendering in the worker with the engine's templates; stored results are loaded when a template reaches into them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from services.worker.command import placeholder_of
from services.worker.limits import (
    REFERENCE_DEPTH_MAX,
    REFERENCES_BYTES_MAX,
    REFERENCES_MAX,
    RENDER_DEPTH_MAX,
    THREAD_TEMPLATE_CHARS,
)
from services.worker.tools.base import ToolError
from shared.engine.references import (
    LOST,
    LostDataError,
    NeedsDataError,
    ResultRef,
    StepResult,
    loaded,
    reference_of,
    result_ref,
)
from shared.engine.templates import TemplateError, has_template, render_condition, render_text

T = TypeVar("T")
Replace = Callable[[Mapping[str, Any]], Any]  # what a mapping stands for, `NotImplemented` when only for itself

CODE_KEYS = frozenset({"code", "code_b64", "code_base64"})  # braces mean something else in Python


class ReadsResults(Protocol):
    """Where stored results come from, as `services.worker.api.WorkerApi`."""

    async def stored_result(self, locator: str) -> tuple[Any, int] | None:
        """Return the data of a reference and its size (bytes), None when it is gone."""


def with_references(value: Any, depth: int = 0) -> Any:
    """Return names of a command with references that templates can reach into, to `REFERENCE_DEPTH_MAX` levels."""
    if isinstance(value, Mapping):
        reference = reference_of(value) or _original_reference(value)
        if reference is not None:
            return reference
        if depth >= REFERENCE_DEPTH_MAX:
            return value
        members = {key: with_references(member, depth + 1) for key, member in value.items()}
        return StepResult(members) if "context" in members and depth else members
    if isinstance(value, list) and depth < REFERENCE_DEPTH_MAX:
        return [with_references(member, depth + 1) for member in value]
    return value


def _original_reference(value: Mapping[str, Any]) -> ResultRef | None:
    """Return what the original puts in the place of a large part of a command, as a reference."""
    locator = placeholder_of(value)
    return None if locator is None else result_ref({**value, "locator": locator}, {})


def has_templates(value: Any, depth: int = 0) -> bool:
    """Whether `value` or a member of it is a text with something to evaluate."""
    if isinstance(value, str):
        return has_template(value)
    if depth >= RENDER_DEPTH_MAX:
        return False
    if isinstance(value, Mapping):
        return any(has_templates(member, depth + 1) for member in value.values())
    return isinstance(value, list) and any(has_templates(member, depth + 1) for member in value)


def _is_heavy(value: Any, depth: int = 0) -> bool:
    """Whether rendering may take long enough to hold up heartbeats."""
    if isinstance(value, str):
        return has_template(value) and (len(value) > THREAD_TEMPLATE_CHARS or "{%" in value or "range" in value)
    if depth >= RENDER_DEPTH_MAX:
        return False
    if isinstance(value, Mapping):
        return any(_is_heavy(member, depth + 1) for member in value.values())
    return isinstance(value, list) and any(_is_heavy(member, depth + 1) for member in value)


@dataclass(frozen=True, slots=True)
class _Walk:
    """One rendering of nested data; see `Renderer.render`."""

    names: Mapping[str, Any]
    lenient: bool
    replace: Replace | None

    def value(self, value: Any, depth: int = 0, *, is_code: bool = False) -> Any:
        if isinstance(value, str):
            return self._text(value, is_code)
        if depth > RENDER_DEPTH_MAX:
            raise TemplateError(f"a value is nested at most {RENDER_DEPTH_MAX} deep")
        if isinstance(value, Mapping):
            other = NotImplemented if self.replace is None else self.replace(value)
            if other is not NotImplemented:
                return other
            return {key: self.value(member, depth + 1, is_code=key in CODE_KEYS) for key, member in value.items()}
        if isinstance(value, list):
            return [self.value(member, depth + 1) for member in value]
        return value

    def _text(self, text: str, is_code: bool) -> Any:
        try:
            return render_text(text, self.names)
        except TemplateError as error:
            if isinstance(error.__cause__, LostDataError) or not (self.lenient or is_code):
                raise
            return text


def _too_many() -> ToolError:
    text = f"templates reach into more than {REFERENCES_MAX} stored results"
    return ToolError("worker", "TOO_MANY_REFERENCES", text)


class Renderer:
    """Renders the templates of one command and keeps what they loaded."""

    def __init__(self, results: ReadsResults) -> None:
        self._results = results
        self._loaded: dict[str, Any] = {}
        self._bytes = 0

    async def render(
        self, value: Any, names: Mapping[str, Any], *, lenient: bool = False, replace: Replace | None = None
    ) -> Any:
        """Return `value` with every template in it evaluated.

        Args:
            value: plain data with templates.
            names: what they see.
            lenient: a text that fails stays as it is, as with the original's workers; code always does.
            replace: what mappings stand for; its answers are not rendered.

        Raises:
            ToolError: a template fails, or a stored result that it needs is gone or too large.
        """
        if replace is None and not has_templates(value):
            return value
        walk = _Walk({"now": lambda: datetime.now(UTC), **names}, lenient, replace)
        return await self._run(value, lambda: walk.value(value))

    async def holds(self, condition: Any, names: Mapping[str, Any]) -> bool:
        """Return whether a condition is true.

        Raises:
            ToolError: as `render`.
        """
        if not isinstance(condition, str):
            return bool(condition)
        known = {"now": lambda: datetime.now(UTC), **names}
        return await self._run(condition, lambda: render_condition(condition, known))

    async def resolved(self, value: Any) -> Any:
        """Return `value` with a reference replaced by what it stands for.

        Raises:
            ToolError: it is gone or too large.
        """
        reference = (reference_of(value) or _original_reference(value)) if isinstance(value, Mapping) else None
        return value if reference is None else await self._run(None, reference.resolved)

    async def _run(self, source: Any, work: Callable[[], T]) -> T:
        heavy = _is_heavy(source)
        for _ in range(REFERENCES_MAX + 1):
            try:
                with loaded(self._loaded):
                    return await asyncio.to_thread(work) if heavy else work()
            except NeedsDataError as missing:
                await self._load(missing.locator)
            except TemplateError as error:
                lost = isinstance(error.__cause__, LostDataError)
                raise ToolError("worker", "REFERENCE_NOT_AVAILABLE" if lost else "TEMPLATE", str(error)) from error
            except LostDataError as error:
                raise ToolError("worker", "REFERENCE_NOT_AVAILABLE", str(error)) from error
        raise _too_many()

    async def _load(self, locator: str) -> None:
        """Load one more stored result; each is asked for once, so a rendering is repeated `REFERENCES_MAX` times at most."""
        if len(self._loaded) >= REFERENCES_MAX:
            raise _too_many()
        found = await self._results.stored_result(locator)
        if found is None:
            self._loaded[locator] = LOST
            return
        data, size = found
        self._bytes += size
        if self._bytes > REFERENCES_BYTES_MAX:
            text = f"templates reach into stored results of more than {REFERENCES_BYTES_MAX} bytes"
            raise ToolError("worker", "TOO_MANY_REFERENCES", text)
        self._loaded[locator] = data


__all__ = ["CODE_KEYS", "Renderer", "ResultRef", "has_templates", "with_references"]
