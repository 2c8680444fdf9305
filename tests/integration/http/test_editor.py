"""The catalog as the GUI's editor and run dialog use it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.e2e.playbooks import CHOICE, LINEAR
from tests.support.api import RunningApi

FORM = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: form, path: edit/form, description: "**Hello**", exposed_in_ui: true}
workload:
  zeta: 1
  alpha: x # ui:secret
workflow:
  - step: start
    tool: {kind: noop}
"""


@pytest.fixture
def api(shared_api: RunningApi) -> RunningApi:
    """One API for all of these tests."""
    return shared_api


async def register(api: RunningApi, text: str) -> dict[str, Any]:
    status, entry = await api.request("POST", "/api/catalog/register", {"content": text})
    assert status == 200, entry
    return dict(entry)


async def test_a_form_shows_the_fields_of_a_version(api: RunningApi) -> None:
    entry = await register(api, FORM)
    status, form = await api.request("GET", "/api/catalog/edit/form/ui_schema")
    assert status == 200
    assert list(form) == [
        "path", "version", "kind", "title", "description_markdown", "exposed_in_ui", "fields", "generated_at",
    ]  # fmt: skip
    assert (form["title"], form["description_markdown"], form["exposed_in_ui"]) == ("form", "**Hello**", True)
    assert [(item["name"], item["secret"]) for item in form["fields"]] == [("zeta", False), ("alpha", True)]
    await register(api, FORM.replace("zeta", "eta"))
    _, form = await api.request("GET", f"/api/catalog/edit/form/ui_schema?version={entry['version']}")
    assert form["fields"][0]["name"] == "zeta"
    _, form = await api.request("GET", "/api/catalog/edit/form/ui_schema?version=latest")
    assert form["fields"][0]["name"] == "eta"
    missing = await api.request("GET", "/api/catalog/edit/none/ui_schema?version=7")
    assert missing == (404, {"detail": "resource not found: edit/none@7"})
    status, answer = await api.request("GET", "/api/catalog/edit/form/ui_schema?version=x")
    assert (status, answer["detail"][0]["loc"]) == (422, ["query", "version"])


async def test_a_document_is_read_by_query_as_by_body(api: RunningApi) -> None:
    entry = await register(api, LINEAR)
    _, by_body = await api.request("POST", "/api/catalog/resource", {"catalog_id": entry["catalog_id"]})
    for query in (f"catalog_id={entry['catalog_id']}", "path=e2e/linear", "path=e2e/linear&version=latest"):
        assert await api.request("GET", f"/api/catalog/resource?{query}") == (200, by_body)
    missing = await api.request("GET", "/api/catalog/resource?path=no/where")
    assert missing == (404, {"detail": "Catalog entry not found"})
    assert (await api.request("GET", "/api/catalog/resource"))[0] == 422
    _, listed = await api.request("GET", "/api/catalog/list/Playbook?limit=1")
    assert [item["catalog_id"] for item in listed["entries"]] == [entry["catalog_id"]]
    assert await api.request("GET", "/api/catalog/list/nothing") == (200, {"entries": []})


async def test_saved_text_is_the_next_version_of_its_playbook(api: RunningApi) -> None:
    first = await register(api, CHOICE)
    edited = CHOICE.replace("amount: 5", "amount: 6")
    for path, text in (("playbook/content", edited), ("playbook", base64.b64encode(edited.encode()).decode())):
        status, saved = await api.request("PUT", f"/api/catalog/{path}?playbook_id=e2e/choice", {"content": text})
        assert (status, saved["status"]) == (200, "success")
        assert saved["version"] > first["version"]
    _, shown = await api.request("GET", "/api/catalog/playbook/content?playbook_id=e2e/choice")
    assert (shown["content"], shown["version"]) == (edited, saved["version"])
    _, shown = await api.request("GET", f"/api/catalog/playbook/content?playbook_id={first['catalog_id']}")
    assert (shown["content"], shown["version"]) == (CHOICE, first["version"])


async def test_what_cannot_be_saved_is_said_and_stores_nothing(api: RunningApi) -> None:
    entry = await register(api, CHOICE)
    path = "/api/catalog/playbook/content"
    for query, body, expected, said in (
        ("?playbook_id=no/where", {"content": CHOICE}, 404, "Playbook 'no/where' not found"),
        ("?playbook_id=e2e/choice", {"content": LINEAR}, 422, "metadata.path is 'e2e/linear'"),
        ("?playbook_id=e2e/choice", {"content": "a: ["}, 422, "line 1"),
        ("?playbook_id=e2e/choice", {}, 422, "content"),
        ("", {"content": CHOICE}, 422, "playbook_id"),
    ):
        status, answer = await api.request("PUT", path + query, body)
        assert status == expected
        assert said in str(answer["detail"])
    _, newest = await api.request("POST", "/api/catalog/resource", {"path": "e2e/choice"})
    assert newest["catalog_id"] == entry["catalog_id"]
    assert (await api.request("GET", f"{path}?playbook_id=no/where"))[0] == 404


async def test_a_check_names_every_problem_and_stores_nothing(api: RunningApi) -> None:
    path = "/api/catalog/playbooks/validate"
    status, good = await api.request("POST", path, {"content": FORM.replace("edit/form", "edit/never")})
    assert (status, good["valid"], good["errors"]) == (200, True, [])
    wrong = FORM.replace("kind: noop", "kind: nop").replace("edit/form", "edit/never")
    status, bad = await api.request("POST", path, {"content": wrong})
    assert (status, bad["valid"]) == (200, False)
    assert "line 10" in bad["errors"][0]
    assert bad["problems"][0]["key"] == "workflow.0.tool.kind"
    status, bad = await api.request("POST", path, {"content": "a: ["})
    assert (status, bad["valid"]) == (200, False)
    status, answer = await api.request("POST", path, {})
    assert (status, answer["detail"][0]["loc"]) == (422, ["body", "content"])
    assert (await api.request("POST", "/api/catalog/resource", {"path": "edit/never"}))[0] == 404


async def test_only_what_has_not_run_is_deleted(api: RunningApi) -> None:
    text = CHOICE.replace("e2e/choice", "edit/gone")
    first, second = await register(api, text), await register(api, text)
    status, answer = await api.request("DELETE", f"/api/catalog/playbooks/{first['catalog_id']}")
    assert (status, answer["deleted"]) == (200, 1)
    await register(api, text)
    status, answer = await api.request("DELETE", "/api/catalog/playbooks/edit/gone")
    assert (status, answer["deleted"]) == (200, 2)
    missing = await api.request("DELETE", f"/api/catalog/playbooks/{second['catalog_id']}")
    assert missing == (404, {"detail": f"Playbook '{second['catalog_id']}' not found"})
    await api.start(text)
    status, answer = await api.request("DELETE", "/api/catalog/playbooks/edit/gone")
    assert status == 409
    assert "is used by" in answer["detail"]
    assert (await api.request("POST", "/api/catalog/resource", {"path": "edit/gone"}))[0] == 200
