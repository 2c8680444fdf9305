"""Templates: Jinja2 in a sandbox with bounds. A lone `{{ expression }}` keeps its type; mixed text stays text.

What is not defined is empty in text, null alone and false in a condition. Text that names `keychain` or calls `token()` is left
for the worker: a secret never passes through the control plane.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import orjson
from jinja2 import Template, Undefined, meta, nodes
from jinja2 import TemplateError as JinjaError
from jinja2.environment import TemplateExpression

from shared.engine.budget import (
    TemplateError,
    UnusableError,
    Watch,
    budgeted,
    missed,
    refuse,
    spend_values,
    watch,
)
from shared.engine.limits import (
    NAME_CHARS_MAX,
    TEMPLATE_CACHE_MAX,
    TEMPLATE_CHARS_MAX,
    TEMPLATE_MISSES_MAX,
    TEMPLATE_OUTPUT_CHARS_MAX,
    VALUE_DEPTH_MAX,
)
from shared.engine.references import LostDataError, ResultRef, TextObject
from shared.engine.sandbox import bounded, build_environment

_KEYCHAIN = re.compile(r"\{[{%][^{}]*(?:\bkeychain\b|\btoken\s*\()")
KEYCHAIN_REFERENCE = "$noetl_ref"  # key of a mapping that stands for a field of a keychain entry
_FALSE_TEXTS = frozenset({"", "false", "0", "no", "none"})  # the original's truth of text in conditions
_PATH = re.compile(
    r"(?!(?:true|false|none|True|False|None|not|loop)\b)[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*"
)
_GO_PART = re.compile(
    r"\{\{-?\s*(?:[.$]|(?:range|with|if|json|len|index|printf|println|join)\s+[.$\"])[^{}]*\}\}"
)  # of Go's templates, as in `docker ps --format '{{.Names}}'`: no expression of ours begins so
_GO_END = re.compile(r"\{\{-?\s*(?:end|else)\s*-?\}\}")
_FAILURES = (
    JinjaError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)  # all that evaluating an expression, or compiling it, can raise

_environment = build_environment()


@contextmanager
def watching(*, strict: bool = False, seed: str = "") -> Iterator[Watch]:
    """Note what templates look up in vain while the block runs; `strict`: that is an error."""
    found = Watch(strict=strict, seed=seed)
    token = watch.set(found)
    try:
        yield found
    finally:
        watch.reset(token)


def missed_so_far() -> int:
    """Return how often templates used what is undefined, within `watching`."""
    found = watch.get()
    return 0 if found is None else len(found.missed)


def missed_since(mark: int) -> list[str]:
    """Return the names that were undefined since `missed_so_far()` was `mark`, `TEMPLATE_MISSES_MAX` at most."""
    found = watch.get()
    if found is None or len(found.missed) == mark:
        return []
    names = found.missed[mark:]
    return [name[:NAME_CHARS_MAX] for name in dict.fromkeys(names)][:TEMPLATE_MISSES_MAX]


def has_template(text: str) -> bool:
    """Return whether `text` has anything to evaluate."""
    return "{{" in text or "{%" in text


def names_keychain(text: str) -> bool:
    """Return whether `text` refers to the keychain, or calls `token()`, and is left to the worker."""
    return ("keychain" in text or "token" in text) and _KEYCHAIN.search(text) is not None


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


def _without_go(text: str) -> str:
    """Return a template whose parts in Go's language are literal text: they are meant for the command that gets them."""
    if _GO_PART.search(text) is None:
        return text
    for part in (_GO_PART, _GO_END):
        text = part.sub(lambda found: "{% raw %}" + found[0] + "{% endraw %}", text)
    return text


@lru_cache(maxsize=TEMPLATE_CACHE_MAX)
def _compiled(text: str) -> tuple[Any, Template | None]:
    """Return (expression, None) for a lone expression, else (None, template)."""
    if len(text) > TEMPLATE_CHARS_MAX:
        raise refuse(f"a template has at most {TEMPLATE_CHARS_MAX} characters")
    text = _without_go(text)
    stripped = text.strip()
    if stripped.startswith("{{") and stripped.endswith("}}"):
        match _environment.parse(stripped).body:
            case [nodes.Output(nodes=[expression])] if not isinstance(expression, nodes.TemplateData):
                named = nodes.Assign(nodes.Name("result", "store"), expression, lineno=1)
                template = _environment.from_string(nodes.Template([named], lineno=1))
                return TemplateExpression(template, undefined_to_none=False), None
    return None, _environment.from_string(text)


@lru_cache(maxsize=TEMPLATE_CACHE_MAX)
def _condition(text: str) -> Any:
    if len(text) > TEMPLATE_CHARS_MAX:
        raise refuse(f"a template has at most {TEMPLATE_CHARS_MAX} characters")
    return _environment.compile_expression(text, undefined_to_none=False)


def check_template(text: str, *, condition: bool = False) -> str | None:
    """Return what is wrong with the syntax of `text`, None when it is fine."""
    try:
        if has_template(text):
            _compiled(text)
        elif condition:
            _condition(text)
    except _FAILURES as error:
        return str(error) or type(error).__name__
    return None


def names_in(text: str) -> frozenset[str]:
    """Return the names that a template or a condition looks up; none when it is malformed."""
    try:
        parsed = _environment.parse(text if has_template(text) else f"{{{{ {text} }}}}")
    except JinjaError:
        return frozenset()
    return frozenset(meta.find_undeclared_variables(parsed))


def needed_names(text: str, *, condition: bool = False) -> frozenset[str]:
    """Return the names without which a template has nothing to say: not those that it asks for or has a default for.

    Args:
        text: a template; text without braces needs nothing, unless it is a condition.
        condition: `text` is an expression, with or without braces.
    """
    if not has_template(text) and not condition:
        return frozenset()
    path = _PATH.fullmatch(_inner(text.strip()) if has_template(text) else text.strip())
    if path is not None:  # most templates are one path
        return frozenset({path[0].partition(".")[0]}) - _environment.globals.keys()
    try:
        parsed = _environment.parse(text if has_template(text) else f"{{{{ {text} }}}}")
    except JinjaError:
        return frozenset()
    thought_of: set[str] = set(_environment.globals)
    for node in parsed.find_all((nodes.Filter, nodes.Test, nodes.Or, nodes.CondExpr, nodes.If)):
        asked = _asked_for(node)
        if isinstance(asked, nodes.Name):
            thought_of.add(asked.name)
        elif asked is not None:
            thought_of |= {name.name for name in asked.find_all(nodes.Name)}
    return frozenset(meta.find_undeclared_variables(parsed)) - thought_of


def _asked_for(node: nodes.Node) -> nodes.Node | None:
    """Return the part of a template that may be undefined, as its author knows."""
    match node:
        case nodes.Filter(name="default" | "d") | nodes.Test(name="defined" | "undefined" | "none"):
            return node.node
        case nodes.Or():
            return node.left
        case nodes.CondExpr() | nodes.If():
            return node.test
    return None


def _evaluate(text: str, run: Callable[[], Any]) -> Any:
    try:
        with budgeted():
            return run()
    except (LostDataError, UnusableError) as error:
        raise UnusableError(f"{_shown(text)}: {error}") from error
    except _FAILURES as error:
        raise TemplateError(f"{_shown(text)}: {error or type(error).__name__}") from error
    except MemoryError as error:
        raise TemplateError(f"{_shown(text)}: makes too much") from error


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
            return _plain(_walk(path, names))
        expression, template = _compiled(text)
        if template is None:
            return _plain(expression(names))
        out = template.render(names)
        if len(out) > TEMPLATE_OUTPUT_CHARS_MAX:
            raise refuse(f"makes more than {TEMPLATE_OUTPUT_CHARS_MAX} characters")
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
    value = names.get(path[0], _environment.undefined)
    if value is _environment.undefined:
        missed(".".join(path))
        return None
    for part in path[1:]:
        value = _environment.getattr(value, part)
        if isinstance(value, Undefined):
            missed(".".join(path))
            return None
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


def _plain(value: Any) -> Any:
    """Return the value of a lone expression as something JSON can hold; its members are counted."""
    if value is None or isinstance(value, str | int | float):
        return json_value(value)
    if isinstance(value, Undefined):
        missed(str(value._undefined_name))
        return None
    spend_values(value)
    return json_value(value)


def json_value(value: Any, depth: int = 0) -> Any:
    """Return `value` as something JSON can hold; what is undefined becomes null, generators become lists."""
    if depth > VALUE_DEPTH_MAX:
        raise refuse(f"a value is nested at most {VALUE_DEPTH_MAX} deep")
    if value is None or isinstance(value, str | bool | float):
        return value if not isinstance(value, str) or type(value) is str else str(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise refuse("an integer has at most 64 bits")
        return value
    if isinstance(value, Undefined):
        return None
    if isinstance(value, TextObject):
        return str(value)
    if isinstance(value, ResultRef):
        return value.resolved()
    if isinstance(value, Mapping):
        return {str(key): json_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [json_value(item, depth + 1) for item in value]
    if callable(value):
        raise refuse("the expression names a function; call it")
    if hasattr(value, "__iter__"):
        found = [json_value(item, depth + 1) for item in bounded(value)]
        spend_values(found)
        return found
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
    bare = not has_template(text)
    value = _evaluate(text, lambda: _plain(_condition(text)(names))) if bare else render_text(text, names)
    if isinstance(value, str):
        return value.strip().lower() not in _FALSE_TEXTS
    return bool(value)


__all__ = [
    "KEYCHAIN_REFERENCE",
    "TemplateError",
    "UnusableError",
    "check_template",
    "deferred_paths",
    "has_template",
    "missed_since",
    "missed_so_far",
    "names_in",
    "names_keychain",
    "render_condition",
    "render_text",
    "render_value",
    "watching",
]
