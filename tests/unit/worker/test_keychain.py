"""Keychain entries: read, renewed, made from the playbook's definitions, and kept out of what is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from services.worker.command import Command
from services.worker.keychain import Keychain, named_entries, render_places
from services.worker.keychain_entries import KeychainEntries
from services.worker.templates import Renderer
from services.worker.tools import ToolError

CATALOG, EXECUTION = 77, 700


class Api:
    """Keychain and catalog routes of the API: entries by (name, scope), and the playbook's text."""

    def __init__(self, text: str = "") -> None:
        self.entries: dict[tuple[str, str], dict[str, Any]] = {}
        self.text = text
        self.kept: dict[str, dict[str, Any]] = {}

    async def ask(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        await asyncio.sleep(0)
        if path == "/api/catalog/resource":
            return {"content": self.text}
        name = path.removeprefix(f"/api/keychain/{CATALOG}/").split("?")[0]
        if method == "POST":
            self.kept[name] = body
            self.entries[(name, body["scope_type"])] = {"status": "success", "ttl_seconds": body["ttl_seconds"], **body}
            return {"status": "success"}
        scope = "global" if "scope_type=global" in path else "local"
        return self.entries.get((name, scope), {"status": "not_found"})

    async def stored_result(self, locator: str) -> None:
        return None


class Elsewhere:
    """Credentials and secrets of other stores."""

    async def credential(self, name: str) -> dict[str, Any]:
        return {"db_host": "h", "db_password": f"password of {name}"}

    async def secret(self, provider: str, name: str, auth: Any) -> Any:
        return f"{provider}/{name}/{auth}"


class Endpoint:
    """A token endpoint that counts what it is asked."""

    def __init__(self) -> None:
        self.url = ""
        self.forms: list[dict[str, Any]] = []
        self.status = 200

    async def handle(self, request: web.Request) -> web.Response:
        self.forms.append(dict(await request.post()))
        return web.json_response({"access_token": f"token-{len(self.forms)}", "expires_in": 1800}, status=self.status)


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    app = web.Application()
    app.router.add_post("/token", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = "http://{}:{}/token".format(*runner.addresses[0][:2])
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


def keychain(api: Api, session: aiohttp.ClientSession, source: KeychainEntries | None = None, **names: Any) -> Keychain:
    command = Command(
        execution_id=EXECUTION,
        command_id=1,
        event_id=1,
        step="s",
        kind="http",
        attempt=1,
        tool_config={},
        input={},
        render_context={"catalog_id": str(CATALOG), **names},
        meta={},
    )
    return Keychain(source or KeychainEntries(api, session), Elsewhere(), command, Renderer(api))


def stored(data: dict[str, Any], *, ttl: float = 3000, renew: Any = None, status: str = "success") -> dict[str, Any]:
    token = data if status == "success" else None
    return {
        "status": status,
        "token_data": token,
        "ttl_seconds": ttl,
        "auto_renew": renew is not None,
        "renew_config": renew,
    }


async def read(chain: Keychain, name: str) -> Any:
    return (await chain.entries([name]))[name]


async def test_the_global_entry_goes_before_the_executions_own(session: aiohttp.ClientSession) -> None:
    api = Api()
    api.entries = {
        ("a", "global"): stored({"t": 1}),
        ("a", "local"): stored({"t": 2}),
        ("b", "local"): stored({"t": 3}),
    }
    chain = keychain(api, session)
    assert (await read(chain, "a"), await read(chain, "b")) == ({"t": 1}, {"t": 3})


@pytest.mark.parametrize(
    "entry",
    [
        stored({"access_token": "old"}, ttl=200, renew={"endpoint": "x"}),
        stored({}, renew={"endpoint": "x"}, status="expired"),
    ],
)
async def test_an_entry_that_ends_is_renewed_and_kept(
    entry: dict[str, Any], endpoint: Endpoint, session: aiohttp.ClientSession
) -> None:
    api = Api()
    entry["renew_config"] = {"endpoint": endpoint.url, "data": {"grant_type": "client_credentials", "client_id": "me"}}
    api.entries[("k", "global")] = entry
    assert (await read(keychain(api, session), "k"))["access_token"] == "token-1"
    assert endpoint.forms == [{"grant_type": "client_credentials", "client_id": "me"}]
    kept = api.kept["k"]
    assert (kept["ttl_seconds"], kept["auto_renew"], kept["credential_type"], kept["cache_type"]) == (
        1800,
        True,
        "oauth2_client_credentials",
        "token",
    )


async def test_many_commands_renew_once(endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
    api = Api()
    api.entries[("k", "global")] = stored({}, renew={"endpoint": endpoint.url}, status="expired")
    source = KeychainEntries(api, session)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        reading = [group.create_task(read(keychain(api, session, source), "k")) for _ in range(10)]
    assert {task.result()["access_token"] for task in reading} == {"token-1"}
    assert len(endpoint.forms) == 1


async def test_an_entry_that_cannot_be_renewed_is_used_while_it_holds(
    endpoint: Endpoint, session: aiohttp.ClientSession
) -> None:
    api, endpoint.status = Api(), 500
    api.entries[("k", "global")] = stored({"access_token": "old"}, ttl=100, renew={"endpoint": endpoint.url})
    assert await read(keychain(api, session), "k") == {"access_token": "old"}
    api.entries[("k", "global")] = stored({}, renew={"endpoint": endpoint.url}, status="expired")
    with pytest.raises(ToolError) as failure:
        await read(keychain(api, session), "k")
    assert failure.value.retryable


DEFINED = """
keychain:
  - {name: app, kind: static, data: {client_id: me, client_secret: "{{ workload.secret }}"}}
  - name: token
    kind: oauth2
    auto_renew: true
    endpoint: "{{ workload.url }}"
    data: {client_id: "{{ keychain.app.client_id }}", client_secret: "{{ keychain.app.client_secret }}"}
  - {name: fixed, kind: bearer, token: "{{ workload.secret }}", scope: local}
  - {name: db, kind: credential, credential: pg, map: {password: db_password}}
  - {name: openai, kind: secrets, provider: gcp, auth: gcp_auth, map: {api_key: projects/1/secrets/openai}}
  - {name: one, kind: static, data: {x: "{{ keychain.two.x }}"}}
  - {name: two, kind: static, data: {x: "{{ keychain.one.x }}"}}
  - {name: odd, kind: carrier_pigeon}
"""


async def test_entries_are_made_from_their_definitions(endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
    api = Api(DEFINED)
    chain = keychain(api, session, workload={"url": endpoint.url, "secret": "very-secret-1"})
    assert (await read(chain, "token"))["access_token"] == "token-1"
    assert endpoint.forms == [{"client_id": "me", "client_secret": "very-secret-1"}]
    assert api.kept["token"]["renew_config"]["endpoint"] == endpoint.url
    assert (await read(chain, "fixed"))["token"] == "very-secret-1"
    assert (api.kept["fixed"]["scope_type"], api.kept["fixed"]["execution_id"]) == ("local", EXECUTION)
    assert await read(chain, "db") == {"password": "password of pg"}
    assert await read(chain, "openai") == {"api_key": "gcp/projects/1/secrets/openai/gcp_auth"}
    assert await read(keychain(api, session), "token") == {"access_token": "token-1", "expires_in": 1800}
    assert len(endpoint.forms) == 1, "the second command finds it"


@pytest.mark.parametrize(
    ("name", "says"),
    [("no", "does not exist"), ("one", "one -> two -> one"), ("odd", "carrier_pigeon"), ("token", "endpoint")],
)
async def test_an_entry_that_cannot_be_had_is_named(name: str, says: str, session: aiohttp.ClientSession) -> None:
    with pytest.raises(ToolError, match=says):
        await read(keychain(Api(DEFINED), session, workload={}), name)


async def test_a_playbook_that_cannot_be_read_has_no_definitions(session: aiohttp.ClientSession) -> None:
    for text in ("{", "[]", "keychain: x", ""):
        with pytest.raises(ToolError, match="does not exist"):
            await read(keychain(Api(text), session), "k")


def test_entries_are_found_by_name() -> None:
    config = {
        "a": "{{ keychain.one.x }} {{ keychain['two'].x }}",
        "b": [{"$noetl_ref": {"kind": "keychain", "name": "three", "field": "x"}}],
        "c": "keychain.four",
    }
    assert named_entries(config) == ["one", "three", "two"]


async def test_a_secret_that_looks_like_a_template_or_reference_is_not_evaluated(
    session: aiohttp.ClientSession,
) -> None:
    api = Api()
    api.entries[("k", "global")] = stored({"x": "{{ 1 + 1 }}", "y": "very-secret"})
    chain = keychain(api, session)
    written = {"direct": "{{ keychain.k.x }}", "ref": {"$noetl_ref": {"kind": "keychain", "name": "k", "field": "x"}}}
    written["data"] = "{{ data }}"
    data = {"$noetl_ref": {"kind": "keychain", "name": "k", "field": "y"}}
    rendered = await render_places(written, {"data": data}, None, chain, Renderer(api), lenient=False)
    assert rendered == {"direct": "{{ 1 + 1 }}", "ref": "{{ 1 + 1 }}", "data": data}


async def test_code_that_names_the_keychain_and_has_braces_of_its_own(session: aiohttp.ClientSession) -> None:
    api = Api()
    api.entries[("k", "global")] = stored({"x": "very-secret"})
    chain = keychain(api, session)
    source = {"code": "t = '{{ keychain.k.x }}'", "other": 1}
    rendered = await render_places(source, {}, [["code"]], chain, Renderer(api), lenient=False)
    assert rendered == {"code": "t = 'very-secret'", "other": 1}
    broken = {"code": "t = '{{ keychain.k.x }}' + f'{{x!r}}'"}
    assert await render_places(broken, {}, [["code"]], chain, Renderer(api), lenient=False) == broken
