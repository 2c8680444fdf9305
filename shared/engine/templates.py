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
from jinja2 import ChainableUndefined, Template, Undefined, meta, nodes
from jinja2 import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.engine.limits import (
    TEMPLATE_CACHE_MAX,
    TEMPLATE_CHARS_MAX,
    TEMPLATE_LOOP_STEPS_MAX,
    TEMPLATE_OUTPUT_CHARS_MAX,
    TEMPLATE_POWER_MAX,
    TEMPLATE_RANGE_MAX,
    VALUE_DEPTH_MAX,
)
from shared.engine.references import LostDataError, ResultRef

_KEYCHAIN = re.compile(r"\{[{%][^{}]*\bkeychain\b")
KEYCHAIN_REFERENCE = "$noetl_ref"  # key of a mapping that stands for a field of a keychain entry
_FALSE_TEXTS = frozenset({"", "false", "0", "no", "none"})  # the original's truth of text in conditions
_PATH = re.compile(
    r"(?!(?:true|false|none|True|False|None|not|loop)\b)[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*"
)
_WIDENERS = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs"}
)  # text methods that make as much as they are told
_steps_left: ContextVar[list[int]] = ContextVar("steps_left")
_range_left: ContextVar[int] = ContextVar("range_left", default=TEMPLATE_RANGE_MAX)


class TemplateError(ValueError):
    """A template is malformed or cannot be evaluated; the text names the template and the reason."""


class _Missing(ChainableUndefined):
    """Undefined that compares, adds and counts as nothing."""

    __slots__ = ()


def _refuse(reason: str) -> TemplateError:
    return TemplateError(reason)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"**", "*", "+", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Bound every loop and every joining of text in the syntax tree."""
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "playhead_bounded", [], [], None, None, lineno=loop.lineno)
        for joined in tree.find_all(nodes.Concat):
            parts = nodes.List(joined.nodes, lineno=joined.lineno)
            joined.nodes = [nodes.Filter(parts, "playhead_joined", [], [], None, None, lineno=joined.lineno)]
        return tree

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Count calls: macros may call each other without end."""
        _spend(1)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str) and obj.__name__ in _WIDENERS and args and isinstance(args[0], int):
            _bound_text(args[0])
        if isinstance(owner, str) and obj.__name__ == "replace" and len(args) >= 2:
            _bound_text(len(owner) * max(len(str(args[1])), 1))
        return super().call(context, obj, *args, **kwargs)

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
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            _bound_text(len(left) + len(right))
        if operator == "%" and isinstance(left, str):
            _bound_text(sum(int(width) for width in re.findall(r"%[^a-zA-Z%]*?(\d+)", left)[:100]))
        return super().call_binop(context, operator, left, right)


def _bound_text(chars: int) -> None:
    if chars > TEMPLATE_OUTPUT_CHARS_MAX:
        raise _refuse(f"makes more than {TEMPLATE_OUTPUT_CHARS_MAX} characters")


def _spend(steps: int) -> None:
    left = _steps_left.get(None)
    if left is None:
        return
    left[0] -= steps
    if left[0] < 0:
        raise _refuse(f"takes more than {TEMPLATE_LOOP_STEPS_MAX} rounds of loops and calls")


def _bounded(items: Any) -> Iterator[Any]:
    for item in items:
        _spend(1)
        yield item


def _joined(parts: list[Any]) -> str:
    texts = [str(part) for part in parts]
    _bound_text(sum(map(len, texts)))
    return "".join(texts)


def _filled(value: Any, width: int = 80) -> str:
    _bound_text(int(width))
    return str(value).center(int(width))


def _indented(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = str(value)
    step = width if isinstance(width, str) else " " * min(int(width), TEMPLATE_OUTPUT_CHARS_MAX)
    _bound_text(len(text) + len(step) * (text.count("\n") + 1))
    lines = [line if not line and not blank else step + line for line in text.split("\n")]
    return "\n".join(lines) if first else "\n".join([text.split("\n")[0], *lines[1:]])


def _replaced(value: Any, old: str, new: str, count: int = -1) -> str:
    text = str(value)
    _bound_text(len(text) + (text.count(str(old)) * len(str(new))))
    return text.replace(str(old), str(new), -1 if count is None else count)


def _safe_get(value: Any, key: Any, default: Any = None) -> Any:
    """Return a member of a mapping or list, `default` when it is not there."""
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        return default


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
        "playhead_bounded": _bounded,
        "playhead_joined": _joined,
        "center": _filled,
        "indent": _indented,
        "replace": _replaced,
        "get": _safe_get,
        "keys": lambda value: list(value),
        "values": lambda value: list(value.values()),
        "len": len,
        "split": lambda value, separator=None: str(value).split(separator),
    }
    environment.filters.update(filters)
    environment.globals["len"] = len
    environment.globals["str"] = str
    environment.globals["int"] = int
    environment.globals["float"] = float
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
    steps = _steps_left.set([TEMPLATE_LOOP_STEPS_MAX])
    try:
        return run()
    except LostDataError as error:
        raise TemplateError(f"{_shown(text)}: {error}") from error
    except TemplateError as error:
        raise TemplateError(f"{_shown(text)}: {error}") from error
    except (JinjaError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise TemplateError(f"{_shown(text)}: {error or type(error).__name__}") from error
    except MemoryError as error:
        raise TemplateError(f"{_shown(text)}: makes too much") from error
    finally:
        _range_left.reset(token)
        _steps_left.reset(steps)


def _shown(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."


def render_text(text: str, names: Mapping[str, Any]) -> Any:
    """Return the value of one template; text without a template is returned as it is.

    Raises:
        TemplateError: it is malformed, fails, or exceeds a bound.
    """
    if not has_template(text) or ("keychain" not in names and names_keychain(text)):
        return text

    def run() -> Any:
        path = _dotted_path(text)
        if path is not None:
            return json_value(_walk(path, names))
        expression, template = _compiled(text)
        if template is None:
            return json_value(expression(names))
        out = template.render(names)
        if len(out) > TEMPLATE_OUTPUT_CHARS_MAX:
            raise _refuse(f"makes more than {TEMPLATE_OUTPUT_CHARS_MAX} characters")
        return _structure(out)

    return _evaluate(text, run)


@lru_cache(maxsize=TEMPLATE_CACHE_MAX)
def _dotted_path(text: str) -> tuple[str, ...] | None:
    """Return the parts of a lone `{{ a.b.c }}`, None of any other template: most are one, and need no Jinja."""
    stripped = text.strip()
    if len(stripped) > 200 or not (stripped.startswith("{{") and stripped.endswith("}}")):
        return None
    inner = _inner(stripped)
    if _PATH.fullmatch(inner) is None or inner.split(".")[0] in _environment.globals:
        return None
    return tuple(inner.split("."))


def _walk(path: tuple[str, ...], names: Mapping[str, Any]) -> Any:
    value = names.get(path[0])
    for part in path[1:]:
        if value is None or isinstance(value, Undefined):
            return None
        value = _environment.getattr(value, part)
    return value


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
    if isinstance(value, ResultRef):
        return value.resolved()
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
