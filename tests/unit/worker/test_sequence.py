"""Task sequences: what tasks see, what policies do, and the result that the engine reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from services.worker.outcome import sequence_outcome
from services.worker.sequence import parse_tasks, run_sequence
from services.worker.templates import Renderer
from services.worker.tools import ToolError
from shared.engine.outcome import sequence_result, sequence_variables
from shared.engine.references import result_ref


class Scripted:
    """A command whose tools answer what the test says: the next of the answers of that kind, else their own input."""

    def __init__(self, answers: dict[str, list[Any]] | None = None, stored: dict[str, Any] | None = None) -> None:
        self.answers = answers or {}
        self.stored = stored or {}
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.slept: list[float] = []
        self._renderer = Renderer(self)

    @property
    def log_fields(self) -> dict[str, Any]:
        return {"execution_id": 1, "command_id": 2}

    async def stored_result(self, locator: str) -> tuple[Any, int] | None:
        return (self.stored[locator], 1) if locator in self.stored else None

    async def rendered(self, value: Any, names: Mapping[str, Any]) -> Any:
        return await self._renderer.render(value, names)

    async def holds(self, condition: Any, names: Mapping[str, Any]) -> bool:
        return await self._renderer.holds(condition, names)

    async def call(
        self, kind: str, config: Mapping[str, Any], given: Mapping[str, Any], names: Mapping[str, Any]
    ) -> Any:
        self.calls.append((kind, config))
        answers = self.answers.get(kind)
        answer = answers.pop(0) if answers else dict(config.get("input", {}))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def without_secrets(self, error: ToolError) -> ToolError:
        return error

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def http(status: int, body: Any = None) -> Any:
    answer = {"status_code": status, "headers": {}, "url": "u", "elapsed": 0.1, "data": body}
    if status < 300:
        return answer
    return ToolError("http", f"HTTP_{status}", f"HTTP {status}", retryable=status >= 500, data=answer)


def task(name: str, kind: str = "python", *rules: Any, **config: Any) -> dict[str, Any]:
    spec = {"spec": {"policy": {"rules": list(rules)}}} if rules else {}
    return {"name": name, "kind": kind, **spec, **config}


async def run(scope: Scripted, *tasks: Any, **names: Any) -> dict[str, Any]:
    return await run_sequence(scope, {"tasks": list(tasks)}, names, {})


async def test_the_result_has_the_shape_that_the_engine_reads() -> None:
    result = await run(
        Scripted(),
        task("one", input={"n": 1}),
        task(
            "two",
            "python",
            {"then": {"do": "continue", "set": {"ctx.total": "{{ _prev.n + 1 }}"}}},
            input={"n": "{{ one.n }}"},
        ),
    )
    metrics = result.pop("metrics")
    assert set(metrics) == {"task_count", "duration_ms", "tool_ms", "render_ms"}
    assert metrics["task_count"] == 2
    assert result == {
        "status": "ok",
        "_prev": {"n": 1},
        "results": {"one": {"n": 1}, "two": {"n": 1}},
        "ctx": {"total": 2},
    }
    assert sequence_variables({**result, "metrics": {}}) == {"total": 2}
    assert sequence_result({**result, "metrics": {}})["n"] == 1


async def test_what_a_task_sees() -> None:
    scope = Scripted()
    names = {
        "workload": {"w": 1},
        "ctx": {"c": 2},
        "iter": {"item": 3},
        "w": 1,
        "before": {"x": 4, "context": {"x": 4}},
    }
    shown = {
        "bare": "{{ w }}",
        "workload": "{{ workload.w }}",
        "ctx": "{{ ctx.c }}",
        "iter": "{{ iter.item }}",
        "step": "{{ before.x }}",
        "task": "{{ _task }}",
        "attempt": "{{ _attempt }}",
        "results": "{{ results.first.a }}",
        "label": "{{ first.a }}",
        "self": "{{ first.data.a }}",
        "previous": "{{ _prev }}",
        "text": "v={{ first.a }}",
        "nothing": "{{ no.such.thing }}",
    }
    result = await run(scope, task("first", input={"a": 5}), task("second", input=shown), **names)
    assert result["results"]["second"] == {
        "bare": 1,
        "workload": 1,
        "ctx": 2,
        "iter": 3,
        "step": 4,
        "task": "second",
        "attempt": 1,
        "results": 5,
        "label": 5,
        "self": 5,
        "previous": {"a": 5},
        "text": "v=5",
        "nothing": None,
    }


async def test_data_that_looks_like_a_template_is_data() -> None:
    scope = Scripted({"python": [{"evil": "{{ 1 + 1 }}"}]})
    result = await run(scope, task("first"), task("second", "noop", input={"given": "{{ first.evil }}"}))
    assert result["_prev"] == {"given": "{{ 1 + 1 }}"}


async def test_set_of_a_rule_and_of_a_task() -> None:
    scope = Scripted({"http": [http(200, {"rows": [1, 2]})]})
    result = await run(
        scope,
        task(
            "fetch",
            "http",
            {
                "then": {
                    "do": "continue",
                    "set": {"iter.page": "{{ output.data.data.rows }}", "plain": 7, "step.s": "x"},
                }
            },
            set={
                "raw": "{{ output.data.rows }}",
                "ctx.deep.code": "{{ output.status_code }}",
                "ok": "{{ output.status }}",
            },
        ),
        task(
            "use",
            input={
                "page": "{{ iter.page }}",
                "plain": "{{ ctx.plain }}",
                "bare": "{{ plain }}",
                "w": "{{ workload.plain }}",
                "deep": "{{ ctx.deep.code }}",
                "old": "{{ ctx.deep.old }}",
            },
        ),
        ctx={"deep": {"old": 1}},
    )
    assert result["_prev"] == {"page": [1, 2], "plain": 7, "bare": 7, "w": 7, "deep": 200, "old": 1}
    assert result["ctx"] == {"plain": 7, "s": "x", "raw": [1, 2], "deep": {"old": 1, "code": 200}, "ok": "ok"}


async def test_the_body_of_an_http_answer_is_reached_with_and_without_its_name() -> None:
    names = {"a": "output.data.data.rows", "b": "output.data.rows"}
    then = {"do": "continue", "set": {f"ctx.{key}": f"{{{{ {path} }}}}" for key, path in names.items()}}
    result = await run(Scripted({"http": [http(200, {"rows": [1, 2]})]}), task("fetch", "http", {"then": then}))
    assert result["ctx"] == {"a": [1, 2], "b": [1, 2]}


async def test_retry_until_it_works() -> None:
    rule = {
        "when": "{{ output.error.retryable }}",
        "then": {"do": "retry", "attempts": 5, "backoff": "linear", "delay": 2},
    }
    scope = Scripted({"http": [http(503), http(500), http(200, {"ok": 1})]})
    result = await run(scope, task("fetch", "http", rule))
    assert result["status"] == "ok"
    assert scope.slept == [2.0, 4.0]
    assert len(scope.calls) == 3


async def test_attempts_run_out() -> None:
    rule = {"when": "{{ output.http.status in [500, 503] }}", "then": {"do": "retry", "attempts": 2}}
    result = await run(Scripted({"http": [http(503), http(500)]}), task("fetch", "http", rule), task("never"))
    assert (result["status"], result["failed_task"]) == ("failed", "fetch")
    assert result["error"]["kind"] == "server_error"
    assert result["error"]["status_code"] == 500
    assert result["error"]["message"] == "HTTP 500"


async def test_pages_by_jumping_back() -> None:
    """Given three pages, when a rule jumps back while there are more, then each is fetched once, and counters count."""
    pages = [http(200, {"has_more": more, "rows": [1, 2]}) for more in (True, True, False)]
    rules = [
        {
            "when": "{{ output.data.data.has_more }}",
            "then": {
                "do": "jump",
                "to": "fetch",
                "set": {
                    "iter.page": "{{ iter.page + 1 }}",
                    "ctx.seen": "{{ ctx.seen + (output.data.data.rows | length) }}",
                },
            },
        },
        {"else": {"do": "break", "set": {"ctx.seen": "{{ ctx.seen + (output.data.data.rows | length) }}"}}},
    ]
    start = {"then": {"do": "continue", "set": {"iter.page": 1, "ctx.seen": 0}}}
    scope = Scripted({"http": pages})
    result = await run(
        scope,
        task("init", "noop", start),
        task("fetch", "http", *rules, params={"page": "{{ iter.page }}"}),
        task("never"),
    )
    assert [config["params"]["page"] for kind, config in scope.calls if kind == "http"] == [1, 2, 3]
    assert result["status"] == "break"
    assert result["ctx"] == {"seen": 6}
    assert "never" not in result["results"]


async def test_an_error_that_the_policy_accepts_keeps_the_last_success() -> None:
    scope = Scripted({"http": [http(404)]})
    result = await run(
        scope,
        task("good", input={"n": 1}),
        task("fetch", "http", {"when": "{{ output.error.code == 'HTTP_404' }}", "then": {"do": "continue"}}),
        task("after", input={"last": "{{ _prev.n }}"}),
    )
    assert result["status"] == "ok"
    assert result["_prev"] == {"last": 1}
    assert set(result["results"]) == {"good", "after"}


async def test_without_rules_the_first_error_ends_it() -> None:
    scope = Scripted({"python": [{"n": 1}, ToolError("python", "ValueError", "boom")]})
    result = await run(scope, task("one"), task("two"), task("three"))
    assert result["failed_task"] == "two"
    assert result["error"]["message"] == "boom"
    assert result["error"]["kind"] == "schema"
    assert result["_prev"] == {"n": 1}
    assert len(scope.calls) == 2
    assert sequence_outcome(result).error == "boom"


async def test_a_result_that_calls_itself_an_error_is_one() -> None:
    scope = Scripted({"python": [{"status": "error", "error": "no data"}]})
    rule = {"when": "{{ output.data.status == 'error' }}", "then": {"do": "fail"}}
    result = await run(scope, task("one", "python", rule), task("two"))
    assert result["status"] == "failed"
    assert result["error"]["message"] == "no data"


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (401, "auth", False),
        (404, "not_found", False),
        (418, "client_error", False),
        (429, "rate_limit", True),
        (500, "server_error", True),
    ],
)
async def test_kinds_of_http_errors(status: int, kind: str, retryable: bool) -> None:
    result = await run(Scripted({"http": [http(status)]}), task("fetch", "http"))
    assert (result["error"]["kind"], result["error"]["retryable"]) == (kind, retryable)


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [("40P01", "db_deadlock"), ("23505", "db_constraint"), ("57014", "db_timeout"), ("08006", "db_connection")],
)
async def test_kinds_of_database_errors(sqlstate: str, kind: str) -> None:
    scope = Scripted({"postgres": [ToolError("postgres", f"PG_{sqlstate}", "no")]})
    rule = {
        "when": "{{ output.pg.sqlstate == '" + sqlstate + "' }}",
        "then": {"do": "break", "set": {"k": "{{ output.error.kind }}"}},
    }
    result = await run(scope, task("write", "postgres", rule))
    assert (result["status"], result["ctx"]) == ("break", {"k": kind})


async def test_a_condition_that_fails_does_not_match() -> None:
    result = await run(
        Scripted(),
        task("one", "noop", {"when": "{{ 1 / 0 }}", "then": {"do": "fail"}}, {"else": {"do": "continue"}}),
    )
    assert result["status"] == "ok"


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"then": {"do": "jump", "to": "nowhere"}}, "nowhere"),
        ({"then": {"do": "teleport"}}, "teleport"),
        ({"then": {"do": "retry", "attempts": "x"}}, "attempts"),
        ({"then": {"do": "continue", "set": {"x": "{{ 1 / 0 }}"}}}, "division"),
        ({"then": {"do": "fail", "message": "not {{ output.data.n }} again"}}, "not 1 again"),
    ],
)
async def test_a_policy_that_cannot_be_followed_fails_by_name(rule: Any, says: str) -> None:
    result = await run(Scripted(), task("one", "noop", rule, input={"n": 1}))
    assert result["status"] == "failed"
    assert says in result["error"]["message"]


async def test_a_task_whose_template_fails_can_be_handled() -> None:
    rule = {"when": "{{ output.error.kind == 'template' }}", "then": {"do": "continue"}}
    scope = Scripted()
    result = await run(scope, task("bad", "noop", rule, input={"x": "{{ 1 / 0 }}"}), task("good", input={"x": 1}))
    assert result["results"] == {"good": {"x": 1}}
    assert len(scope.calls) == 1


async def test_templates_reach_into_stored_results() -> None:
    big = result_ref({"locator": "noetl://r/1", "type": "db"}, {"n": 3})
    scope = Scripted(stored={"noetl://r/1": {"n": 3, "rows": [{"x": 1}]}})
    result = await run(
        scope, task("use", input={"n": "{{ big.n }}", "x": "{{ big.rows[0].x }}", "all": "{{ big }}"}), big=big
    )
    assert result["_prev"] == {"n": 3, "x": 1, "all": {"n": 3, "rows": [{"x": 1}]}}


async def test_a_reference_that_is_gone_says_where_to_go_back_to() -> None:
    big = result_ref({"locator": "noetl://r/1", "type": "db"}, {})
    rule = {
        "when": "{{ output.error.code == 'REFERENCE_NOT_AVAILABLE' }}",
        "then": {"do": "break", "set": {"to": "{{ output.error.recovery.to }}"}},
    }
    result = await run(
        Scripted(), task("make", "noop"), task("use", "python", rule, input={"x": "{{ big.rows }}"}), big=big
    )
    assert (result["status"], result["ctx"]) == ("break", {"to": "make"})


@pytest.mark.parametrize(
    "raw",
    [
        [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop"}],
        [{"a": {"kind": "noop"}}, {"b": {"kind": "noop"}}],
        {"a": {"kind": "noop"}, "b": {"kind": "noop"}},
    ],
)
def test_every_way_to_write_tasks(raw: Any) -> None:
    assert [(one.name, one.kind) for one in parse_tasks(raw)] == [("a", "noop"), ("b", "noop")]


def test_tasks_without_a_name_get_one() -> None:
    assert [one.name for one in parse_tasks([{"kind": "noop"}, {"kind": "noop"}])] == ["task_0", "task_1"]


@pytest.mark.parametrize(
    "raw", [[], None, "x", [1], [{"name": "a"}], [{"kind": "noop"}] * 201, [{"name": "a", "kind": "noop"}] * 2]
)
def test_tasks_that_are_none(raw: Any) -> None:
    with pytest.raises(ToolError):
        parse_tasks(raw)


async def test_selected_members_are_on_top_of_a_tasks_result() -> None:
    scope = Scripted({"http": [http(200, {"items": [{"id": 9}]})]})
    fetch = task("fetch", "http", output={"select": [{"path": "data.items[0].id", "as": "first_id"}, "status_code"]})
    result = await run(scope, fetch, task("use", input={"id": "{{ fetch.first_id }}"}))
    assert result["_prev"] == {"id": 9}


async def test_a_large_sequence_travels_with_its_variables() -> None:
    rule = {"then": {"do": "continue", "set": {"ctx.n": 1}}}
    scope = Scripted({"python": [{"count": 2, "rows": ["x"] * 3}]})
    outcome = sequence_outcome(await run(scope, task("make", "python", rule)))
    seen = result_ref({"locator": "noetl://r/1"}, outcome.shown)
    assert sequence_variables(seen) == {"n": 1}
    assert sequence_result(seen)["count"] == 2
    assert outcome.stored is not None
    assert b'"rows"' in outcome.stored


async def test_what_is_stored_is_reached_into_with_the_last_tasks_members_on_top() -> None:
    scope = Scripted({"python": [{"count": 2, "rows": ["x", "y"]}]})
    outcome = sequence_outcome(await run(scope, task("make")))
    step = sequence_result(result_ref({"locator": "noetl://r/1"}, outcome.shown))
    reader = Scripted(stored={"noetl://r/1": orjson.loads(outcome.stored or b"")})
    result = await run(
        reader, task("use", input={"y": "{{ step.rows[1] }}", "label": "{{ step.results.make.rows[0] }}"}), step=step
    )
    assert result["_prev"] == {"y": "y", "label": "x"}
