"""POST /api/context/render: what a template makes of an execution's data. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from pydantic import Field

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, reply, unprocessable
from services.api.inputs import Answer
from services.api.models import NAME_MAX, Lax
from services.api.redaction import redact
from services.api.store import variables
from services.api.store.queries import queries
from shared.engine.limits import VALUE_DEPTH_MAX
from shared.engine.templates import TemplateError, check_template, has_template, names_in, render_value
from shared.wire.types import parse_id

EVENTS_MAX = 10_000  # results that one rendering can see
VARIABLES_MAX = 1000
TEMPLATES_MAX = 1000  # strings of one request

routes = RouteTable("context")

_SQL = queries("replay")


class RenderBody(Lax):
    """Body of `POST /api/context/render`."""

    execution_id: Any = Field(None, description="an integer or a text of digits; required")
    template: Any = Field(None, description="any JSON; every text in it is rendered; required")
    extra_context: dict[str, Any] | None = Field(None, description="more names, which win over those of the execution")
    strict: bool | None = Field(None, description="accepted for compatibility; what is undefined is left as it is")


class Rendered(Answer):
    """Answer of `POST /api/context/render`."""

    status: str
    rendered: Any
    context_keys: list[str]


def _execution_id(value: object) -> int:
    if value is None or value == "":
        raise HttpError(400, "execution_id is required")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise HttpError(400, f"execution_id must be an integer value, got {type(value).__name__}")
    found = parse_id(value)
    if found is None:
        shown = f"'{value[:64]}'" if isinstance(value, str) else str(value)[:64]
        raise HttpError(400, f"execution_id must be an integer value, got {shown}")
    return found


def _results(rows: list[Mapping[str, Any]]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the workload, and the newest result of each node with the tool's own output laid over it."""
    workload: Mapping[str, Any] = {}
    results: dict[str, Any] = {}
    outputs: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        context = row["context"] if isinstance(row["context"], Mapping) else {}
        first = context.get("result")
        if row["event_type"] == "playbook.initialized" and isinstance(first, Mapping):
            found = first.get("workload")
            workload = found if isinstance(found, Mapping) else workload
        node = row["node_name"]
        if node is None or row["result"] is None:
            continue
        if "response" in context:
            output = context["response"]
            outputs[node] = output if isinstance(output, Mapping) else {"data": output}
        results[node] = {**row["result"], **outputs.get(node, {})}
    return workload, results


async def _names(call: Call, execution_id: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    database = call.context.database
    rows = await database.fetch(_SQL["context_events"], execution_id, EVENTS_MAX)
    stored = await variables.list_variables(database, execution_id, limit=VARIABLES_MAX)
    workload, results = _results(list(rows))
    data = {
        "work": workload,
        "workload": workload,
        "results": results,
        "vars": {row["var_name"]: row["var_value"] for row in stored},
        **results,
        **extra,
        "execution_id": str(execution_id),
    }
    job = {"id": str(execution_id), "uuid": str(execution_id), "execution_id": str(execution_id)}
    return {**data, "context": data, "job": job}


class _Renderer:
    """Renders every text of a JSON value; one that names what is not there, or is no template, stays as it is."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._count = 0

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return `value` rendered.

        Raises:
            HttpError: 422 when it is nested too deeply or has too many texts.
        """
        if depth > VALUE_DEPTH_MAX:
            raise unprocessable(["body", "template"], f"template is nested over {VALUE_DEPTH_MAX} levels")
        if isinstance(value, Mapping):
            return {key: self.value(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, depth + 1) for item in value]
        return self._text(value) if isinstance(value, str) and has_template(value) else value

    def _text(self, text: str) -> Any:
        self._count += 1
        if self._count > TEMPLATES_MAX:
            raise unprocessable(["body", "template"], f"template has over {TEMPLATES_MAX} templates in it")
        if check_template(text) is not None or any(name not in self._names for name in names_in(text)):
            return text
        try:
            rendered = render_value(text, self._names)
        except TemplateError as error:
            raise unprocessable(["body", "template"], str(error), text) from error
        return text if rendered is None else rendered


@routes.add(
    "POST",
    "/api/context/render",
    "Render a template with an execution's data",
    role=Access.VIEWER,
    body=RenderBody,
    response=Rendered,
    errors=(400,),
)
async def render(call: Call) -> web.StreamResponse:
    """Render every text of `template`; results keep their types, and what is not defined stays as it is written."""
    body: RenderBody = call.body
    execution_id = _execution_id(body.execution_id)
    if body.template is None:
        raise HttpError(400, "template is required")
    extra = body.extra_context or {}
    if any(len(name) > NAME_MAX for name in extra):
        raise unprocessable(["body", "extra_context"], f"a name has at most {NAME_MAX} characters")
    names = await _names(call, execution_id, extra)
    rendered = _Renderer(names).value(body.template)
    return reply({"status": "ok", "rendered": redact(rendered), "context_keys": list(names)})
