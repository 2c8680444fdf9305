"""Rendering in the worker: native types, references, and what the author wrote."""

from __future__ import annotations

from typing import Any

import pytest

from services.worker.limits import REFERENCES_MAX
from services.worker.outcome import outcome_of
from services.worker.select import selected, selecting, with_selected
from services.worker.templates import Renderer, with_references
from services.worker.tools import ToolError


class Store:
    """Stored results by locator; counts what is asked for."""

    def __init__(self, **stored: Any) -> None:
        self.stored = {f"noetl://{name}": value for name, value in stored.items()}
        self.asked: list[str] = []

    async def stored_result(self, locator: str) -> tuple[Any, int] | None:
        self.asked.append(locator)
        return (self.stored[locator], 10) if locator in self.stored else None


def reference(name: str, **scalars: Any) -> dict[str, Any]:
    """Return a reference as it travels in a command."""
    locator = f"noetl://{name}"
    return {**scalars, "_ref": locator, "ref": locator, "reference": {"type": "result_ref", "locator": locator}}


async def rendered(value: Any, store: Store | None = None, **names: Any) -> Any:
    return await Renderer(store or Store()).render(value, with_references(names))


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ n }}", 5),
        ("{{ n + 1 }}", 6),
        ("v={{ n }}", "v=5"),
        ("{{ s }}", "007"),
        ("{{ items }}", [1, 2]),
        ("{{ nothing }}", None),
        ("{{ nothing.deep }}", None),
        ("{{ nothing | default('d') }}", "d"),
        ("{{ obj | tojson }}", '{"a":1}'),
        ("{% for x in items %}{{ x }},{% endfor %}", "1,2,"),
        ("plain", "plain"),
    ],
)
async def test_types_are_native(template: str, value: Any) -> None:
    assert await rendered(template, n=5, s="007", items=[1, 2], obj={"a": 1}) == value


async def test_now_is_a_function() -> None:
    assert str(await rendered("{{ now() }}")).startswith("20")


async def test_a_stored_result_is_loaded_once_and_only_when_it_is_needed() -> None:
    store = Store(big={"rows": [1, 2], "n": 2})
    assert await rendered({"n": "{{ big.n }}"}, store, big=reference("big", n=2)) == {"n": 2}
    assert store.asked == []
    value = {"first": "{{ big.rows[0] }}", "ctx": "{{ ctx.big.rows | length }}", "n": "{{ loop.results[0].rows }}"}
    names = {"big": reference("big", n=2), "ctx": {"big": reference("big")}, "loop": {"results": [reference("big")]}}
    assert await rendered(value, store, **names) == {"first": 1, "ctx": 2, "n": [1, 2]}
    assert store.asked == ["noetl://big"]


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ big[1] }}", 5),
        ("{{ big[-1] }}", 5),
        ("{{ big[9] }}", None),
        ("{{ big | length }}", 2),
        ("{{ big | first }}", 4),
        ("{% for x in big %}{{ x }};{% endfor %}", "4;5;"),
        ("{{ big }}", [4, 5]),
    ],
)
async def test_a_stored_list_is_a_list(template: str, value: Any) -> None:
    assert await rendered(template, Store(big=[4, 5]), big=reference("big")) == value


async def test_the_originals_placeholders_are_references_too() -> None:
    placeholder = {"kind": "result_ref", "ref": "noetl://big", "store": "kv"}
    assert await rendered("{{ step.rows }}", Store(big={"rows": [1]}), step=placeholder) == [1]


async def test_a_result_that_is_gone_fails_with_its_name() -> None:
    with pytest.raises(ToolError, match="noetl://big does not exist") as failure:
        await rendered("{{ big.rows }}", big=reference("big"))
    assert failure.value.code == "REFERENCE_NOT_AVAILABLE"


async def test_references_are_bounded() -> None:
    names = {f"r{n}": reference(f"r{n}") for n in range(REFERENCES_MAX + 1)}
    store = Store(**{name: {"x": 1} for name in names})
    with pytest.raises(ToolError) as failure:
        await rendered(["{{ %s.x }}" % name for name in names], store, **names)
    assert failure.value.code == "TOO_MANY_REFERENCES"


async def test_a_template_that_fails_is_an_error_but_code_stays() -> None:
    with pytest.raises(ToolError) as failure:
        await rendered({"url": "{{ 1 / 0 }}"})
    assert failure.value.code == "TEMPLATE"
    code = {"code": "x = '{{ 1 / 0 }}'"}
    assert await rendered(code) == code
    assert await Renderer(Store()).render({"url": "{{ 1 / 0 }}"}, {}, lenient=True) == {"url": "{{ 1 / 0 }}"}


async def test_a_template_that_never_ends_is_ended() -> None:
    with pytest.raises(ToolError, match="rounds"):
        await rendered("{% for a in range(90000) %}{% for b in x %}{% endfor %}{% endfor %}", x=list(range(1000)))


RESULT = {"data": {"items": [{"id": 7}], "total": 1}, "status": "ok"}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"select": ["status", "data.total"]}, {"status": "ok", "total": 1}),
        ({"select": [{"path": "$.data.items[0].id", "as": "first"}]}, {"first": 7}),
        ({"select": {"n": "data.total", "gone": "data.no.such"}}, {"n": 1}),
        ({"output_select": ["data.items[0]"]}, {"0": {"id": 7}}),
        (["status"], {"status": "ok"}),
        ({"store": {"kind": "auto"}}, {}),
        ({"select": [1, None, {"as": "x"}, ""]}, {}),
        (None, {}),
        ("status", {}),
    ],
)
def test_selected_members(output: Any, expected: dict[str, Any]) -> None:
    assert selected(RESULT, output) == expected


def test_selected_members_go_on_top_and_hide_nothing() -> None:
    output = {"select": [{"path": "data.total", "as": "status"}, {"path": "data.total", "as": "n"}]}
    assert with_selected(RESULT, output) == {"n": 1, **RESULT}
    assert with_selected([1], output) == [1]
    assert selecting({"output": {"store": {}}, "output_select": ["status"]}) == ["status"]


def test_a_large_scalar_does_not_hide_the_small_ones() -> None:
    outcome = outcome_of({"id": 7, "text": "x" * 100_000, "note": "y", "meta": {"n": 1, "rows": [1]}})
    assert outcome.brief == {"id": 7, "note": "y", "meta": {"n": 1}}
    assert outcome.shown == {"id": 7, "note": "y"}, "a part of `meta` would hide the rest of it"
