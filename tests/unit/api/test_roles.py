"""Who may call what: every mounted route names a role, and roles nest as documented."""

from __future__ import annotations

from itertools import chain

import pytest

from services.api.app import TABLES
from services.api.auth.roles import ALLOWED, Access, Role
from services.api.http import RouteSpec
from services.api.openapi import openapi_document

SPECS = list(chain.from_iterable(table.specs for table in TABLES))
OPEN_PATHS = {"/", "/health", "/api/health", "/livez", "/readyz", "/api/runtime/contract"}  # the last before a login


def route(spec: RouteSpec) -> str:
    return f"{spec.method} {spec.path}"


@pytest.mark.parametrize("spec", SPECS, ids=route)
def test_every_route_names_who_may_call_it(spec: RouteSpec) -> None:
    assert isinstance(spec.role, Access)
    assert spec.internal == spec.path.startswith("/api/internal/")
    assert (spec.role is Access.PUBLIC) == (spec.path in OPEN_PATHS)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.method in ("PUT", "PATCH", "DELETE")], ids=route)
def test_no_viewer_changes_anything(spec: RouteSpec) -> None:
    assert Role.VIEWER not in ALLOWED[spec.role]


def test_a_route_without_a_role_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="role"):
        RouteSpec(method="GET", path="/x", handler=SPECS[0].handler, summary="", tag="")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("GET /api/executions", {"viewer", "operator", "worker", "admin"}),
        ("POST /api/execute", {"operator", "worker", "admin"}),
        ("POST /api/catalog/register", {"operator", "admin"}),
        ("POST /api/credentials", {"operator", "admin"}),
        ("POST /api/commands/{event_id}/claim", {"worker", "admin"}),
        ("GET /api/keychain/{catalog_id}/{keychain_name}", {"worker", "admin"}),
        ("POST /api/internal/outbox/claim", set()),
    ],
)
def test_roles_of_well_known_routes(path: str, allowed: set[str]) -> None:
    (spec,) = (spec for spec in SPECS if route(spec) == path)
    assert ALLOWED[spec.role] == allowed


def test_the_openapi_document_says_who_may_call() -> None:
    operations = [
        (path, method, operation)
        for path, item in openapi_document(TABLES)["paths"].items()
        for method, operation in item.items()
    ]
    for path, method, operation in operations:
        (spec,) = (spec for spec in SPECS if (spec.path, spec.method.lower()) == (path, method))
        assert operation["x-playhead-role"] == spec.role.value
        assert (operation["security"] == []) == (spec.role is Access.PUBLIC)
        schemes = {name for item in operation["security"] for name in item}
        assert ("internal" in schemes) == spec.internal
        if spec.role not in (Access.PUBLIC, Access.INTERNAL):
            assert {"token", "session"} <= schemes
            assert "403" in operation["responses"]


def test_secrets_of_a_credential_need_more_than_a_look() -> None:
    (spec,) = (spec for spec in SPECS if route(spec) == "GET /api/credentials/{identifier}")
    assert spec.elevated == ("include_data", Access.WORKER)
