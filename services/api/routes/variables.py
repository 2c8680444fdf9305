"""/api/vars/{execution_id}: variables of an execution. Unknown executions are not refused, as in the original."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiohttp import web
from pydantic import model_validator

from services.api.auth.roles import Access
from services.api.http import Call, HttpError, RouteTable, not_found, reply, unprocessable
from services.api.inputs import Answer, ShortText, path_text
from services.api.models import NAME_MAX, Lax, storable
from services.api.store import variables as store
from services.api.views import time_z

VARIABLES_MAX = 1000  # variables in one request, and of one execution in a list
VAR_TYPES = ("computed", "iterator_state", "step_result", "user_defined")  # the CHECK of the column

routes = RouteTable("variables")


class SetVariables(Lax):
    """Body of `POST /api/vars/{execution_id}`.

    Rust workers send the variables without a wrapper, clients of the Rust server as a list of `{var_name, var_value}`.
    """

    variables: dict[str, Any]
    var_type: ShortText = "user_defined"
    source_step: ShortText | None = None

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, data: object) -> object:
        if not isinstance(data, dict) or not data:
            return data
        if "variables" not in data:
            return {"variables": data}
        rows = data["variables"]
        if isinstance(rows, list) and rows and all(isinstance(row, dict) and "var_name" in row for row in rows):
            first = {key: rows[0][key] for key in ("var_type", "source_step") if rows[0].get(key) is not None}
            return {**first, **data, "variables": {str(row["var_name"]): row.get("var_value") for row in rows}}
        return data


class VariablesSet(Answer):
    """Answer of `POST /api/vars/{execution_id}`."""

    execution_id: int
    variables_set: int
    var_names: list[str]


class Variable(Answer):
    """One variable with its metadata."""

    value: Any
    type: str
    source_step: str | None
    created_at: datetime
    accessed_at: datetime
    access_count: int


class VariableList(Answer):
    """Answer of `GET /api/vars/{execution_id}`."""

    execution_id: int
    variables: dict[str, Variable]
    count: int


class NamedVariable(Variable):
    """Answer of `GET /api/vars/{execution_id}/{var_name}`."""

    execution_id: int
    var_name: str


class VariableDeleted(Answer):
    """Answer of `DELETE /api/vars/{execution_id}/{var_name}`."""

    execution_id: int
    var_name: str
    deleted: bool


class VariablesDeleted(Answer):
    """Answer of `DELETE /api/vars/{execution_id}`."""

    execution_id: int
    deleted_count: int


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "value": row["var_value"],
        "type": row["var_type"],
        "source_step": row["source_step"],
        "created_at": time_z(row["created_at"]),
        "accessed_at": time_z(row["accessed_at"]),
        "access_count": row["access_count"],
    }


def _check_names(names: Mapping[str, Any]) -> None:
    for name in names:
        if not 1 <= len(name) <= NAME_MAX:
            raise unprocessable(["body", "variables"], f"a variable name has 1 to {NAME_MAX} characters", name)
        try:
            storable(name)
        except ValueError as error:
            raise unprocessable(["body", "variables"], f"a variable name {error}") from error


@routes.add(
    "GET",
    "/api/variables/{execution_id}",
    "The same as /api/vars/{execution_id}",
    role=Access.VIEWER,
    response=VariableList,
)
@routes.add(
    "GET", "/api/vars/{execution_id}", "List the variables of an execution", role=Access.VIEWER, response=VariableList
)
async def list_variables(call: Call) -> web.StreamResponse:
    """Answer every variable, `VARIABLES_MAX` at most."""
    execution_id = call.path_id("execution_id")
    rows = await store.list_variables(call.context.database, execution_id, limit=VARIABLES_MAX)
    found = {row["var_name"]: _document(row) for row in rows}
    return reply({"execution_id": execution_id, "variables": found, "count": len(found)})


@routes.add(
    "POST",
    "/api/vars/{execution_id}",
    "Set variables of an execution",
    role=Access.RUNNER,
    body=SetVariables,
    response=VariablesSet,
    errors=(400,),
)
async def set_variables(call: Call) -> web.StreamResponse:
    """Set or overwrite variables, all or none."""
    execution_id = call.path_id("execution_id")
    body: SetVariables = call.body
    if not body.variables:
        raise HttpError(400, "Request body must contain 'variables' dict with at least one variable")
    if body.var_type not in VAR_TYPES:
        raise HttpError(400, f"Invalid var_type '{body.var_type}'. Must be one of: {', '.join(VAR_TYPES)}")
    if len(body.variables) > VARIABLES_MAX:
        raise unprocessable(["body", "variables"], f"one request sets at most {VARIABLES_MAX} variables")
    _check_names(body.variables)
    await store.save(
        call.context.database, execution_id, body.variables, var_type=body.var_type, source_step=body.source_step
    )
    names = list(body.variables)
    return reply({"execution_id": execution_id, "variables_set": len(names), "var_names": names})


@routes.add(
    "GET",
    "/api/variables/{execution_id}/{var_name}",
    "The same as /api/vars/{execution_id}/{var_name}",
    role=Access.VIEWER,
    response=NamedVariable,
    errors=(404,),
)
@routes.add(
    "GET",
    "/api/vars/{execution_id}/{var_name}",
    "Read a variable",
    role=Access.VIEWER,
    response=NamedVariable,
    errors=(404,),
)
async def get_variable(call: Call) -> web.StreamResponse:
    """Answer one variable and count the access."""
    execution_id, name = call.path_id("execution_id"), path_text(call, "var_name")
    row = await store.read(call.context.database, execution_id, name)
    if row is None:
        raise not_found(f"Variable '{name}' not found for execution {execution_id}")
    return reply({"execution_id": execution_id, "var_name": name, **_document(row)})


@routes.add(
    "DELETE", "/api/vars/{execution_id}/{var_name}", "Delete a variable", role=Access.RUNNER, response=VariableDeleted
)
async def delete_variable(call: Call) -> web.StreamResponse:
    """Delete one variable; `deleted` is false when there was none."""
    execution_id, name = call.path_id("execution_id"), path_text(call, "var_name")
    deleted = await store.delete(call.context.database, execution_id, name)
    return reply({"execution_id": execution_id, "var_name": name, "deleted": deleted})


@routes.add(
    "DELETE",
    "/api/vars/{execution_id}",
    "Delete every variable of an execution",
    role=Access.RUNNER,
    response=VariablesDeleted,
)
async def delete_variables(call: Call) -> web.StreamResponse:
    """Delete every variable of an execution."""
    execution_id = call.path_id("execution_id")
    deleted = await store.delete_all(call.context.database, execution_id)
    return reply({"execution_id": execution_id, "deleted_count": deleted})
