"""Templates: Jinja2 in a sandbox with bounds. A lone `{{ expression }}` keeps its type; mixed text stays text.

What is not defined is empty in text, null alone and false in a condition. Text that names `keychain` is left for the worker:
a secret never passes through the control plane.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import orjson
from jinja2 import ChainableUndefined, Template, Undefined, meta
from jinja2 import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.engine.limits import (
    TEMPLATE_CACHE_MAX,
    TEMPLATE_CHARS_MAX,
    TEMPLATE_OUTPUT_CHARS_MAX,
    TEMPLATE_POWER_MAX,
    TEMPLATE_RANGE_MAX,
    VALUE_DEPTH_MAX,
)

_KEYCHAIN = re.compile(r"\{[{%][^{}]*\bkeychain\b")
KEYCHAIN_REFERENCE = "$noetl_ref"  # key of a mapping that stands for a field of a keychain entry
_FALSE_TEXTS = frozenset({"", "false", "0", "no", "none"})  # the original's truth of text in conditions
_range_left: ContextVar[int] = ContextVar("range_left", default=TEMPLATE_RANGE_MAX)


class TemplateError(ValueError):
    """A template is malformed or cannot be evaluated; the text names the template and the reason."""


class _Missing(ChainableUndefined):
    """Undefined that compares, adds and counts as nothing."""

    __slots__ = ()


def _refuse(reason: str) -> TemplateError:
    return TemplateError(reason)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"**", "*"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Prefer a key over a method, so that a result may have a field `items`."""
        if isinstance(obj, Mapping):
            try:
                return obj[attribute]
            except KeyError:
                pass
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Bound what a short expression can make."""
        if operator == "**" and isinstance(right, int | float) and abs(right) > TEMPLATE_POWER_MAX:
            raise _refuse(f"an exponent is at most {TEMPLATE_POWER_MAX}")
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                countable = isinstance(one, str | list | tuple) and isinstance(other, int)
                if countable and len(one) * other > TEMPLATE_OUTPUT_CHARS_MAX:
                    raise _refuse(f"a repetition makes at most {TEMPLATE_OUTPUT_CHARS_MAX} items")
        return super().call_binop(context, operator, left, right)


def _range(*arguments: int) -> range:
    wanted = range(*arguments)
    left = _range_left.get() - len(wanted)
    if left < 0:
        raise _refuse(f"range() makes at most {TEMPLATE_RANGE_MAX} items in one template")
    _range_left.set(left)
    return wanted


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    if value is None or isinstance(value, Undefined) or (boolean and not value):
        return default_value
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Undefined):
        return None
    return str(value)


def _tojson(value: Any) -> str:
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def _b64decode(value: Any) -> str:
    return base64.b64decode(str(value)).decode()


def _b64encode(value: Any) -> str:
    return base64.b64encode(str(value).encode()).decode()


def _build() -> _Environment:
    environment = _Environment(undefined=_Missing, autoescape=False, cache_size=0)
    environment.globals["range"] = _range
    del environment.globals["lipsum"]
    filters: dict[str, Callable[..., Any]] = {
        "default": _default,
        "d": _default,
        "tojson": _tojson,
        "fromjson": orjson.loads,
        "b64encode": _b64encode,
        "b64decode": _b64decode,
    }
    environment.filters.update(filters)
    return environment


_environment = _build()


def has_template(text: str) -> bool:
    """Return whether `text` has anything to evaluate."""
    return "{{" in text or "{%" in text


def names_keychain(text: str) -> bool:
    """Return whether `text` refers to the keychain and is left to the worker."""
    return "keychain" in text and _KEYCHAIN.search(text) is not None


def _inner(text: str) -> str:
    """Return what stands between the braces of `{{ .. }}`, without the marks of whitespace control next to them."""
    inner = text[2:-2]
    start = 1 if inner[:1] in ("-", "+") else 0
    end = len(inner) - (1 if inner[-1:] in ("-", "+") else 0)
    return inner[start:end].strip()


def deferred_paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where `value`, as its author wrote it, names the keychain: the worker renders these places and no others.

    Data that only looks like a template, because a step before returned it, is never rendered.
    """
    if isinstance(value, str):
        if names_keychain(value):
            yield path
    elif len(path) <= VALUE_DEPTH_MAX:
        if isinstance(value, Mapping):
            if KEYCHAIN_REFERENCE in value:
                yield path
                return
            for key, item in value.items():
                yield from deferred_paths(item, (*path, str(key)))
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                yield from deferred_paths(item, (*path, index))


@lru_cache(maxsize=TEMPLATE_CACHE_MAX)
def _compiled(text: str) -> tuple[Any, Template | None]:
    """Return (expression, None) for a lone expression, else (None, template)."""
    if len(text) > TEMPLATE_CHARS_MAX:
        raise _refuse(f"a template has at most {TEMPLATE_CHARS_MAX} characters")
    stripped = text.strip()
    if stripped.startswith("{{") and stripped.endswith("}}"):
        try:
            return _environment.compile_expression(_inner(stripped), undefined_to_none=True), None
        except JinjaError:
            pass  # `{{ a }} and {{ b }}` is no expression: text
    return None, _environment.from_string(text)


@lru_cache(maxsize=TEMPLATE_CACHE_MAX)
def _condition(text: str) -> Any:
    if len(text) > TEMPLATE_CHARS_MAX:
        raise _refuse(f"a template has at most {TEMPLATE_CHARS_MAX} characters")
    return _environment.compile_expression(text, undefined_to_none=True)


def check_template(text: str, *, condition: bool = False) -> str | None:
    """Return what is wrong with the syntax of `text`, None when it is fine."""
    try:
        if has_template(text):
            _compiled(text)
        elif condition:
            _condition(text)
    except (JinjaError, TemplateError, RecursionError) as error:
        return str(error) or type(error).__name__
    return None


def names_in(text: str) -> frozenset[str]:
    """Return the names that a template or a condition looks up; none when it is malformed."""
    try:
        parsed = _environment.parse(text if has_template(text) else f"{{{{ {text} }}}}")
    except JinjaError:
        return frozenset()
    return frozenset(meta.find_undeclared_variables(parsed))


def _evaluate(text: str, run: Callable[[], Any]) -> Any:
    token = _range_left.set(TEMPLATE_RANGE_MAX)
    try:
        return run()
    except TemplateError as error:
        raise TemplateError(f"{_shown(text)}: {error}") from error
    except (JinjaError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise TemplateError(f"{_shown(text)}: {error or type(error).__name__}") from error
    except MemoryError as error:
        raise TemplateError(f"{_shown(text)}: makes too much") from error
    finally:
        _range_left.reset(token)


def _shown(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."


def render_text(text: str, names: Mapping[str, Any]) -> Any:
    """Return the value of one template; text without a template is returned as it is.

    Raises:
        TemplateError: it is malformed, fails, or exceeds a bound.
    """
    if not has_template(text) or names_keychain(text):
        return text

    def run() -> Any:
        expression, template = _compiled(text)
        if template is None:
            return json_value(expression(names))
        out = template.render(names)
        if len(out) > TEMPLATE_OUTPUT_CHARS_MAX:
            raise _refuse(f"makes more than {TEMPLATE_OUTPUT_CHARS_MAX} characters")
        return _structure(out)

    return _evaluate(text, run)


def _structure(text: str) -> Any:
    """Return text that is a whole JSON object or array as what it says, other text as it is."""
    stripped = text.strip()
    if (stripped[:1], stripped[-1:]) not in (("{", "}"), ("[", "]")):
        return text
    try:
        return orjson.loads(stripped)
    except orjson.JSONDecodeError:
        return text


def json_value(value: Any, depth: int = 0) -> Any:
    """Return `value` as something JSON can hold; what is undefined becomes null, generators become lists."""
    if depth > VALUE_DEPTH_MAX:
        raise _refuse(f"a value is nested at most {VALUE_DEPTH_MAX} deep")
    if value is None or isinstance(value, str | bool | float):
        return value if not isinstance(value, str) or type(value) is str else str(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise _refuse("an integer has at most 64 bits")
        return value
    if isinstance(value, Undefined):
        return None
    if isinstance(value, Mapping):
        return {str(key): json_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [json_value(item, depth + 1) for item in value]
    if callable(value):
        raise _refuse("the expression names a function; call it")
    if hasattr(value, "__iter__"):
        return [json_value(item, depth + 1) for item in value]
    return str(value)


def render_value(value: Any, names: Mapping[str, Any], depth: int = 0) -> Any:
    """Return `value` with every template in it evaluated, at any depth; keys are left alone.

    Raises:
        TemplateError: as `render_text`.
    """
    if isinstance(value, str):
        return render_text(value, names)
    if depth > VALUE_DEPTH_MAX:
        raise TemplateError(f"a value is nested at most {VALUE_DEPTH_MAX} deep")
    if isinstance(value, Mapping):
        return {key: render_value(item, names, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [render_value(item, names, depth + 1) for item in value]
    return value


def render_condition(text: str, names: Mapping[str, Any]) -> bool:
    """Return whether a condition holds. Text without braces is an expression too.

    Raises:
        TemplateError: as `render_text`.
    """
    value = render_text(text, names) if has_template(text) else _evaluate(text, lambda: _condition(text)(**names))
    if isinstance(value, str):
        return value.strip().lower() not in _FALSE_TEXTS
    return bool(value)
