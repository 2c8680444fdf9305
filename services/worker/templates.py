"""Templates that the engine left to the worker, rendered in Jinja2's immutable sandbox."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from jinja2 import ChainableUndefined, Undefined
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.worker.limits import RENDER_DEPTH_MAX, TEMPLATE_MAX_CHARS

_LONE = re.compile(r"\s*\{\{(?P<expression>(?:(?!\{\{|\}\}).)+)\}\}\s*", re.DOTALL)
_CODE_KEYS = frozenset({"code", "code_b64", "code_base64"})  # braces mean something else in Python


def _tojson(value: object) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=ChainableUndefined, autoescape=False)
    environment.filters["tojson"] = _tojson
    return environment


_ENVIRONMENT = _environment()


def has_template(value: object, depth: int = 0) -> bool:
    """Whether `value` or a member of it is a text with an expression or a statement."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if depth >= RENDER_DEPTH_MAX:
        return False
    if isinstance(value, Mapping):
        return any(has_template(member, depth + 1) for member in value.values())
    return isinstance(value, list) and any(has_template(member, depth + 1) for member in value)


def render_text(text: str, names: Mapping[str, Any]) -> Any:
    """Render one text: a lone expression keeps its type, undefined is empty, and a text that fails stays as it is."""
    if not has_template(text) or len(text) > TEMPLATE_MAX_CHARS:
        return text
    lone = _LONE.fullmatch(text)
    try:
        if lone is not None:
            value = _ENVIRONMENT.compile_expression(lone["expression"].strip(), undefined_to_none=False)(**names)
            return "" if isinstance(value, Undefined) else value
        return _ENVIRONMENT.from_string(text).render(names)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return text


def render(value: Any, names: Mapping[str, Any], *, code: Callable[[str], bool], depth: int = 0) -> Any:
    """Return `value` with every template in it rendered.

    Args:
        value: plain JSON data.
        names: what templates see.
        code: whether a text under a `code` key is rendered too.
        depth: nesting so far; deeper than `RENDER_DEPTH_MAX` is left as it is.
    """
    if isinstance(value, str):
        return render_text(value, names)
    if depth >= RENDER_DEPTH_MAX:
        return value
    if isinstance(value, Mapping):
        return {
            key: member
            if key in _CODE_KEYS and isinstance(member, str) and not code(member)
            else render(member, names, code=code, depth=depth + 1)
            for key, member in value.items()
        }
    if isinstance(value, list):
        return [render(member, names, code=code, depth=depth + 1) for member in value]
    return value
