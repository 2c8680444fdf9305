"""The Jinja2 environment of templates: a sandbox in which everything that can grow or repeat is bounded."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from types import GeneratorType
from typing import Any

import orjson
import xxhash
from jinja2 import ChainableUndefined, Environment, Undefined, nodes, pass_context, pass_environment
from jinja2.filters import make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.engine.budget import (
    CHARS_PER_STEP,
    Budget,
    bound_text,
    budget,
    missed,
    refuse,
    spend,
    spend_values,
    watch,
)
from shared.engine.limits import (
    TEMPLATE_INTEGER_BITS_MAX,
    TEMPLATE_OUTPUT_CHARS_MAX,
    TEMPLATE_POWER_MAX,
    TEMPLATE_RANGE_MAX,
)
from shared.engine.references import ResultRef

_STEPS_PER_CALL = 5  # a call takes about as long as so many rounds of a loop
_WIDENERS = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})  # make as much text as they are told
_WIDTH = re.compile(r"\d+")


def _bound_items(count: int) -> None:
    if count > TEMPLATE_OUTPUT_CHARS_MAX:
        raise refuse(f"makes a list of more than {TEMPLATE_OUTPUT_CHARS_MAX} items")
    spend(count)


def _bound_format(pattern: str, arguments: Any = ()) -> None:
    """Refuse a pattern that is told to make wide text: by its own numbers, or by those it is given."""
    widths = [int(width[:12]) for width in _WIDTH.findall(pattern)]
    if "*" in pattern or "{" in pattern.partition(":")[2]:  # a width among the arguments
        widths += [item for item in arguments if isinstance(item, int)]
    bound_text(sum(widths) + len(pattern))


class Missing(ChainableUndefined):
    """What is not defined: empty text, false, no items, not more or less than anything; arithmetic with it fails.

    Every use is noted.
    """

    __slots__ = ()

    def _note(self) -> None:
        missed(str(self._undefined_name))

    def __str__(self) -> str:
        self._note()
        return ""

    def __iter__(self) -> Iterator[Any]:
        self._note()
        return iter(())

    def __len__(self) -> int:
        self._note()
        return 0

    def __bool__(self) -> bool:
        self._note()
        return False

    def __eq__(self, other: object) -> bool:
        self._note()
        return isinstance(other, Undefined)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def _orders(self, _: object) -> bool:
        self._note()
        return False

    __lt__ = __le__ = __gt__ = __ge__ = _orders  # type: ignore[assignment]  # in place of what raises
    __hash__ = ChainableUndefined.__hash__


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
        """Count calls, since macros may call each other without end, and bound what methods make."""
        spend(_STEPS_PER_CALL)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            _bound_method(owner, obj.__name__, args, kwargs)
        elif isinstance(owner, int | float | bytes) and obj.__name__ not in ("is_integer", "decode", "hex"):
            raise refuse(f"a number or bytes has no method {obj.__name__} here")
        return super().call(context, obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Bound what `str.format` makes."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            spend_values(args)
            _bound_format(value.__self__, (*args, *kwargs.values()))
            return wrapped(*args, **kwargs)

        return bounded

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Prefer a key over a method, so that a result may have a field `items`; reach into what is stored elsewhere."""
        if isinstance(obj, Mapping):
            try:
                return obj[attribute]
            except KeyError:
                pass
            if isinstance(obj, ResultRef) and attribute in ("get", "items", "keys", "values"):
                obj = obj.resolved()
        return super().getattr(obj, attribute)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse what a template may not touch, instead of calling it undefined; a key that is not there stays that."""
        if isinstance(obj, Mapping | Undefined):
            return self.undefined(obj=obj, name=attribute)
        raise refuse(f"access to attribute '{attribute}' of '{type(obj).__name__}' object is unsafe")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Bound what a short expression can make."""
        if isinstance(left, int) and isinstance(right, int):
            _bound_integers(operator, left, right)
        elif operator == "**" and isinstance(right, int | float) and abs(right) > TEMPLATE_POWER_MAX:
            raise refuse(f"an exponent is at most {TEMPLATE_POWER_MAX}")
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple | bytes) and isinstance(other, int):
                    _bound_items(len(one) * other)
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            bound_text(len(left) + len(right))
        elif operator == "+" and isinstance(left, list | tuple) and isinstance(right, list | tuple):
            _bound_items(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            spend_values(right)
            _bound_format(left, right if isinstance(right, tuple) else (right,))
        return super().call_binop(context, operator, left, right)


def _bound_integers(operator: str, left: int, right: int) -> None:
    if operator == "**":
        if abs(right) > TEMPLATE_POWER_MAX:
            raise refuse(f"an exponent is at most {TEMPLATE_POWER_MAX}")
        bits = left.bit_length() * abs(right)
    else:
        bits = left.bit_length() + right.bit_length()
    if bits > TEMPLATE_INTEGER_BITS_MAX:
        raise refuse(f"makes an integer of more than {TEMPLATE_INTEGER_BITS_MAX} bits")


def _bound_method(owner: str, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    if method in _WIDENERS:
        bound_text(len(owner) + sum(value for value in (*args, *kwargs.values()) if isinstance(value, int)))
    elif method == "replace" and len(args) >= 2:
        bound_text(len(owner) + owner.count(str(args[0])) * len(str(args[1])))
    elif method == "join" and args and isinstance(args[0], list | tuple):
        bound_text(sum(len(item) + len(owner) for item in args[0] if isinstance(item, str)))
    else:
        spend(len(owner) // CHARS_PER_STEP)


# --- filters ----------------------------------------------------------------------------------------------------------


def bounded(items: Any) -> Iterator[Any]:
    """Yield `items`, one step each."""
    for item in items:
        spend(1)
        yield item


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter see the whole of what is stored elsewhere, and count what it walks over."""
    at = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        value = args[at]
        if isinstance(value, ResultRef):
            value = value.resolved()
        if isinstance(value, str):
            spend(1 + len(value) // CHARS_PER_STEP)
        elif isinstance(value, GeneratorType):
            value = bounded(value)
        elif not isinstance(value, Undefined) and hasattr(value, "__len__"):
            spend(1 + len(value))
        return function(*args[:at], value, *args[at + 1 :], **kwargs)

    return guarded


def _joined(parts: list[Any]) -> str:
    spend_values(parts)
    texts = [str(part) for part in parts]
    bound_text(sum(map(len, texts)))
    return "".join(texts)


@pass_environment
def _join(environment: Environment, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    items = list(value)
    if attribute is not None:
        items = list(map(make_attrgetter(environment, attribute), items))
    spend_values(items)
    texts = [str(item) for item in items]
    bound_text(sum(map(len, texts)) + len(str(d)) * len(texts))
    return str(d).join(texts)


def _centered(value: Any, width: int = 80) -> str:
    bound_text(int(width))
    return str(value).center(int(width))


def _formatted(value: Any, *args: Any, **kwargs: Any) -> str:
    given = (*args, *kwargs.values())
    spend_values(given)
    _bound_format(str(value), given)
    return str(value) % (kwargs or args)


def _indented(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = _text(value)
    step = width if isinstance(width, str) else " " * min(int(width), TEMPLATE_OUTPUT_CHARS_MAX)
    bound_text(len(text) + len(step) * (text.count("\n") + 1))
    lines = [line if not line and not blank else step + line for line in text.split("\n")]
    return "\n".join(lines) if first else "\n".join([text.split("\n")[0], *lines[1:]])


def _replaced(value: Any, old: str, new: str, count: int | None = None) -> str:
    text = _text(value)
    bound_text(len(text) + (text.count(str(old)) * len(str(new))))
    return text.replace(str(old), str(new), -1 if count is None else count)


def _batched(value: Any, linecount: int, fill_with: Any = None) -> list[list[Any]]:
    items, size = list(value), max(int(linecount), 1)
    rows = [items[start : start + size] for start in range(0, len(items), size)]
    if rows and fill_with is not None:
        _bound_items(size)
        rows[-1] += [fill_with] * (size - len(rows[-1]))
    return rows


def _text(value: Any) -> str:
    spend_values(value)
    return str(value)


def _get(value: Any, key: Any, default: Any = None) -> Any:
    """Return a member of a mapping or list, `default` when it is not there."""
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        return default


def _range(*arguments: int) -> range:
    wanted = range(*arguments)
    left = budget.get() or Budget()
    left.range_items -= len(wanted)
    if left.range_items < 0:
        raise refuse(f"range() makes at most {TEMPLATE_RANGE_MAX} items in one template")
    return wanted


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    if value is None or isinstance(value, Undefined) or (boolean and not value):
        return default_value
    return value


def _random(value: Any) -> Any:
    """Return a member that depends on the decision and nothing else: deciding again picks the same."""
    items = list(value)
    watching = watch.get()
    seed = "" if watching is None else watching.seed
    return items[xxhash.xxh3_64_intdigest(f"{seed}:{len(items)}".encode()) % len(items)] if items else None


def _plain(value: Any) -> Any:
    return None if isinstance(value, Undefined) else str(value)


def _tojson(value: Any, indent: int | None = None) -> str:
    spend_values(value)
    option = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
    return orjson.dumps(value, default=_plain, option=option).decode()


def _b64decode(value: Any) -> str:
    return base64.b64decode(str(value)).decode()


def _b64encode(value: Any) -> str:
    return base64.b64encode(_text(value).encode()).decode()


def _encrypt_secret(*_: Any) -> str:
    raise refuse("`encrypt_secret` is not available: keep the secret as a credential, named by `auth` or `keychain`")


def _split(value: Any, separator: str | None = None) -> list[str]:
    text = _text(value)
    spend(len(text) // CHARS_PER_STEP)
    return text.split(separator)


@pass_context  # also keeps Jinja from evaluating constants while it compiles, where no budget holds
def _finalized(_: Any, value: Any) -> Any:
    """Bound what becomes text when it is written out."""
    if isinstance(value, list | tuple | Mapping):
        if isinstance(value, ResultRef):
            value = value.resolved()
        spend_values(value)
    return value


def build_environment() -> Environment:
    """Return the environment of all templates."""
    environment = _Environment(undefined=Missing, autoescape=False, cache_size=0, optimized=False, finalize=_finalized)
    del environment.globals["lipsum"]
    environment.globals |= {"range": _range, "len": len, "str": _text, "int": int, "float": float}
    own: dict[str, Callable[..., Any]] = {
        "b64decode": _b64decode,
        "b64encode": _b64encode,
        "batch": _batched,
        "center": _centered,
        "d": _default,
        "default": _default,
        "encrypt_secret": _encrypt_secret,
        "format": _formatted,
        "fromjson": orjson.loads,
        "get": _get,
        "indent": _indented,
        "join": _join,
        "keys": lambda value: list(value),
        "len": len,
        "pprint": _text,
        "random": _random,
        "replace": _replaced,
        "split": _split,
        "string": _text,
        "tojson": _tojson,
        "values": lambda value: list(value.values()),
        "playhead_joined": _joined,
    }
    environment.filters |= own
    environment.filters = {name: _guarded(function) for name, function in environment.filters.items()}
    for name in ("default", "d"):
        environment.filters[name] = _default  # looks at nothing but whether there is a value
    environment.filters["playhead_bounded"] = _rounds
    return environment


def _rounds(items: Any) -> Iterator[Any]:
    """Yield what a `for` goes over, one step each."""
    return bounded(items.resolved() if isinstance(items, ResultRef) else items)
