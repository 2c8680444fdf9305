"""Tokens of Google Cloud against an endpoint that checks what it is given."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.api import RunningApi, running_api
from tests.support.web import serving

PATH = "/api/gcp/token"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"


class Google:
    """A token endpoint and metadata server that remembers what it was asked."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.forms: list[dict[str, Any]] = []
        self.refuse = False
        self.url = ""

    def info(self) -> dict[str, Any]:
        """A service account's key file; its own token address must not be asked."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "client_email": "robot@example.org",
            "private_key": pem.decode(),
            "private_key_id": "k1",
            "token_uri": "http://127.0.0.1:1/evil",
        }

    async def token(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        self.forms.append(form)
        if self.refuse:
            return web.json_response({"error": "invalid_grant", "error_description": "account gone"}, status=400)
        return web.json_response({"access_token": f"ya29.{len(self.forms)}", "expires_in": 3599})

    async def metadata(self, request: web.Request) -> web.Response:
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.json_response({"error": "flavor"}, status=403)
        return web.json_response({"access_token": "ya29.machine", "expires_in": 60})


@pytest.fixture(scope="module")
async def google() -> AsyncIterator[Google]:
    made = Google()
    async with serving(web.post("/token", made.token), web.get("/metadata", made.metadata)) as url:
        made.url = url
        yield made


@pytest.fixture(scope="module")
async def api(
    shared_api: RunningApi, google: Google, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningApi]:
    """An API whose Google is ours."""
    keys = tmp_path_factory.mktemp("keys")
    (keys / "robot.json").write_text(json.dumps(google.info()))
    (keys.parent / "outside.json").write_text(json.dumps(google.info()))
    async with running_api(
        shared_api.dsn,
        noetl_gcp_token_url=f"{google.url}/token",
        noetl_gcp_metadata_url=f"{google.url}/metadata",
        noetl_gcp_credentials_dir=str(keys),
    ) as running:
        yield running


async def test_a_key_is_exchanged_for_a_token(api: RunningApi, google: Google) -> None:
    google.forms.clear()
    status, answer = await api.request("POST", PATH, {"credentials_info": google.info(), "scopes": SCOPE})
    assert status == 200
    assert (answer["access_token"], answer["scopes"]) == ("ya29.1", [SCOPE])
    assert answer["token_expiry"].endswith("+00:00")
    (form,) = google.forms
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = jwt.decode(
        form["assertion"], google.key.public_key(), algorithms=["RS256"], audience=f"{google.url}/token"
    )
    assert (claims["iss"], claims["scope"], claims["exp"] - claims["iat"]) == ("robot@example.org", SCOPE, 3600)
    assert jwt.get_unverified_header(form["assertion"])["kid"] == "k1"


async def test_every_source_gives_a_token(api: RunningApi, google: Google) -> None:
    await api.request("POST", "/api/credentials", {"name": "robot", "type": "gcp", "data": google.info()})
    user = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
    for source in (
        {"credentials_info": json.dumps(google.info())},
        {"credential": "robot"},
        {"credential_name": "robot"},
        {"credentials_path": "robot.json"},
        {"credentials_info": user},
        {"use_metadata": True},
    ):
        status, answer = await api.request("POST", PATH, source)
        assert (status, answer["access_token"][:5]) == (200, "ya29."), source
    assert google.forms[-1]["refresh_token"] == "r"
    assert answer["access_token"] == "ya29.machine"


async def test_a_token_can_be_kept_as_a_credential(api: RunningApi, google: Google) -> None:
    body = {"credentials_info": google.info(), "store_as": "gcp_now", "store_tags": "a,b", "scopes": [SCOPE]}
    _, answer = await api.request("POST", PATH, body)
    _, kept = await api.request("GET", "/api/credentials/gcp_now?include_data=true")
    assert (kept["type"], kept["tags"]) == ("httpBearerAuth", ["a", "b"])
    assert kept["data"]["access_token"] == answer["access_token"]
    assert kept["data"]["scopes"] == [SCOPE]


async def test_what_is_wrong_is_said_without_the_key(api: RunningApi, google: Google) -> None:
    info = google.info()
    for body, expected, said in (
        ({}, 422, "No credential source specified. Provide one of: credentials_info, credentials_path"),
        ({"credentials_info": {"type": "x"}}, 422, "credentials_info.type"),
        ({"credentials_info": {**info, "client_email": None}}, 422, "credentials_info.client_email"),
        ({"credentials_info": {**info, "private_key": "abcdefgh"}}, 422, "no RSA key"),
        ({"credentials_info": "{"}, 422, "credentials_info"),
        ({"credential": "nobody"}, 404, "Credential not found"),
        ({"credentials_path": "../outside.json"}, 422, "no such file in NOETL_GCP_CREDENTIALS_DIR"),
        ({"service_account_secret": "projects/x"}, 422, "store the key as a credential"),
        ({"scopes": [5]}, 422, "scopes"),
        ({"scopes": None, "store_tags": None}, 422, "No credential source specified"),
    ):
        status, answer = await api.request("POST", PATH, body)
        assert status == expected, body
        assert said in str(answer["detail"])
        assert "abcdefgh" not in str(answer)
    google.refuse = True
    try:
        status, answer = await api.request("POST", PATH, {"credentials_info": info})
    finally:
        google.refuse = False
    assert (status, answer["detail"]) == (422, "the token endpoint answered 400: account gone")


async def test_the_route_can_be_switched_off_and_needs_a_directory_for_files(shared_api: RunningApi) -> None:
    status, answer = await shared_api.request("POST", PATH, {"credentials_path": str(Path("/etc/passwd"))})
    assert (status, "NOETL_GCP_CREDENTIALS_DIR is not set" in str(answer["detail"])) == (422, True)
    away = "http://127.0.0.1:1/token"
    async with running_api(shared_api.dsn, noetl_gcp_metadata_url=away) as api:
        status, answer = await api.request("POST", PATH, {"use_metadata": True})
        assert (status, answer["detail"]["code"]) == (503, "google_unavailable")
    async with running_api(shared_api.dsn, noetl_enable_gcp_token_api=False) as api:
        assert (await api.request("POST", PATH, {"use_metadata": True}))[0] == 404
