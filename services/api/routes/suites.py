"""Test suites of the GUI's test lab."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import BaseModel, Field

from services.api.auth.roles import Access
from services.api.http import Call, RouteTable, not_found, reply, unprocessable
from services.api.inputs import Key, path_text
from services.api.models import Lax
from services.api.store.queries import queries
from services.api.views import time_offset

if TYPE_CHECKING:
    from services.api.store.database import Row

routes = RouteTable("playbook tests")

_SQL = queries("suite")
TESTS_MAX = 1000
SUITE_ID_CHARS_MAX = 512  # a key of a B-tree index
_SUITE_ID = re.compile(r"[\w .@+-]+(?:/[\w .@+-]+)*\Z")


class SuiteBody(Lax):
    """Body of `PUT /api/playbook-tests/suites/{suite_id}`."""

    playbook_path: Key
    tests: list[dict[str, Any]] = Field(default_factory=list, max_length=TESTS_MAX)
    metadata: dict[str, Any] = Field(default_factory=dict)


class SuiteReply(BaseModel):
    """A suite; `file_path` is the name that it has as a file in the original."""

    suite_id: str
    file_path: str
    playbook_path: str
    tests: list[dict[str, Any]]
    metadata: dict[str, Any]
    updated_at: datetime


class SuiteDeleted(BaseModel):
    """Answer of `DELETE /api/playbook-tests/suites/{suite_id}`."""

    status: str
    suite_id: str
    file_path: str


def _file_path(suite_id: str) -> str:
    return f"playbook_tests/{suite_id}.json"


def _suite_id(call: Call) -> str:
    text = path_text(call, "suite_id").strip("/")
    if len(text) > SUITE_ID_CHARS_MAX or _SUITE_ID.match(text) is None or ".." in text:
        message = (
            f"a suite id is a path like a/b of at most {SUITE_ID_CHARS_MAX} characters: letters, digits, . _ - @ +"
        )
        raise unprocessable(["path", "suite_id"], message, text)
    return text


def _document(row: Row) -> dict[str, Any]:
    return {
        "suite_id": row["suite_id"],
        "file_path": _file_path(row["suite_id"]),
        "playbook_path": row["playbook_path"],
        "tests": row["tests"],
        "metadata": row["metadata"],
        "updated_at": time_offset(row["updated_at"]),
    }


@routes.add(
    "GET",
    "/api/playbook-tests/suites/{suite_id}",
    "Read a test suite",
    role=Access.VIEWER,
    response=SuiteReply,
    errors=(404,),
)
async def get_suite(call: Call) -> web.StreamResponse:
    """Answer the suite."""
    suite_id = _suite_id(call)
    row = await call.context.database.fetchrow(_SQL["get"], suite_id)
    if row is None:
        raise not_found(f"Test suite '{suite_id}' not found")
    return reply(_document(row))


@routes.add(
    "PUT",
    "/api/playbook-tests/suites/{suite_id}",
    "Create or replace a test suite",
    role=Access.OPERATOR,
    body=SuiteBody,
    response=SuiteReply,
    errors=(413,),
)
async def put_suite(call: Call) -> web.StreamResponse:
    """Store the suite as a whole."""
    body: SuiteBody = call.body
    row = await call.context.database.fetchrow(
        _SQL["put"], _suite_id(call), body.playbook_path, body.tests, body.metadata
    )
    assert row is not None
    return reply(_document(row))


@routes.add(
    "DELETE",
    "/api/playbook-tests/suites/{suite_id}",
    "Delete a test suite",
    role=Access.OPERATOR,
    response=SuiteDeleted,
    errors=(404,),
)
async def delete_suite(call: Call) -> web.StreamResponse:
    """Delete the suite."""
    suite_id = _suite_id(call)
    if await call.context.database.fetchrow(_SQL["delete"], suite_id) is None:
        raise not_found(f"Test suite '{suite_id}' not found")
    return reply({"status": "success", "suite_id": suite_id, "file_path": _file_path(suite_id)})
