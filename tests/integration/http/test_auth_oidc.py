"""JWTs: verified against the issuer's published keys, mapped to roles, refused when anything is off."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from services.dev.processes import free_port
from tests.support.api import TOKEN, RunningApi, running_api
from tests.support.nats import NatsServer

ISSUER, AUDIENCE = "https://issuer.test/", "playhead"
KEYS: dict[str, tuple[str, Any]] = {
    "rsa": ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "ec": ("ES256", ec.generate_private_key(ec.SECP256R1())),
    "ed": ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
}
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(key_id: str) -> dict[str, Any]:
    algorithm, key = KEYS[key_id]
    made = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}[algorithm]
    return {**made.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig", "alg": algorithm}


class Issuer:
    """A JWKS endpoint that counts how often it is asked."""

    def __init__(self) -> None:
        self.published = ["rsa", "ec", "ed"]
        self.fetches = 0
        self.is_down = False
        self.url = ""

    async def keys(self, _: web.Request) -> web.Response:
        self.fetches += 1
        if self.is_down:
            raise web.HTTPServiceUnavailable
        return web.json_response({"keys": [public_jwk(key_id) for key_id in self.published]})


@asynccontextmanager
async def serving(issuer: Issuer) -> AsyncIterator[Issuer]:
    app = web.Application()
    app.router.add_get("/keys", issuer.keys)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    issuer.url = f"http://127.0.0.1:{port}/keys"
    try:
        yield issuer
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
async def issuer() -> AsyncIterator[Issuer]:
    async with serving(Issuer()) as made:
        yield made


@pytest.fixture(scope="module")
async def api(module_dsn: str, nats_server: NatsServer, issuer: Issuer) -> AsyncIterator[RunningApi]:
    async with running_api(module_dsn, nats_url=nats_server.url, **options(issuer)) as running:
        yield running


@pytest.fixture
async def own_issuer() -> AsyncIterator[Issuer]:
    async with serving(Issuer()) as made:
        yield made


@pytest.fixture
async def own_api(module_dsn: str, nats_server: NatsServer, own_issuer: Issuer) -> AsyncIterator[RunningApi]:
    async with running_api(module_dsn, nats_url=nats_server.url, **options(own_issuer)) as running:
        yield running


def options(issuer: Issuer) -> dict[str, Any]:
    return {
        "noetl_auth_mode": "oidc",
        "noetl_oidc_issuer": ISSUER,
        "noetl_oidc_audience": AUDIENCE,
        "noetl_oidc_jwks_url": issuer.url,
        "noetl_oidc_role_claim": "realm_access.roles",
        "noetl_oidc_role_map": "ops-readers=viewer, ops=operator, root=admin",
    }


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(key_id: str = "rsa", *, roles: object = ("ops",), key: PrivateKeyTypes | None = None, **changes: Any) -> str:
    algorithm, own = KEYS[key_id]
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 600}
    claims |= {"realm_access": {"roles": list(roles) if isinstance(roles, tuple) else roles}, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key or own, algorithm=algorithm, headers={"kid": key_id})


async def asked(api: RunningApi, token: str, method: str = "GET", path: str = "/api/executions") -> tuple[int, Any]:
    return await api.request(method, path, headers={"Authorization": f"Bearer {token}"})


async def test_tokens_of_every_allowed_algorithm_open_and_name_the_caller(api: RunningApi) -> None:
    for key_id in KEYS:
        assert (await asked(api, signed(key_id)))[0] == 200, key_id
    status, answer = await asked(api, signed(), "GET", "/api/tokens")
    assert status == 403
    assert "needs the role admin; oidc:ada has operator" in answer["detail"]


@pytest.mark.parametrize(
    ("roles", "status"), [(("root", "other"), 200), (("other",), 403), ((), 403), ("root", 200), (None, 403), (7, 403)]
)
async def test_claims_become_roles_by_the_map(api: RunningApi, roles: object, status: int) -> None:
    assert (await asked(api, signed(roles=roles), "GET", "/api/tokens"))[0] == status


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": int(time.time()) - 3600}, "expired"),
        ({"nbf": int(time.time()) + 3600}, "not valid yet"),
        ({"aud": "another"}, "audience"),
        ({"iss": "https://another/"}, "issuer"),
        ({"exp": None}, "wrong"),
        ({"aud": None}, "wrong"),
        ({"sub": None}, "names nobody"),
        ({"key": STRANGER}, "signature"),
    ],
)
async def test_a_token_that_is_off_in_one_thing_is_refused(api: RunningApi, changes: Any, reason: str) -> None:
    status, answer = await asked(api, signed(**changes))
    assert status == 401
    assert reason in answer["detail"]


async def test_a_name_cannot_forge_a_log_line(api: RunningApi) -> None:
    status, answer = await asked(api, signed(sub="eve\n{actor: root}\ud800"), "GET", "/api/tokens")
    assert status == 403
    assert "oidc:eve?{actor: root}? has operator" in answer["detail"]


async def test_clocks_may_differ_a_little(api: RunningApi) -> None:
    assert (await asked(api, signed(exp=int(time.time()) - 5)))[0] == 200
    assert (await asked(api, signed(nbf=int(time.time()) + 5)))[0] == 200


async def test_algorithms_that_trust_the_wrong_key_are_refused(api: RunningApi) -> None:
    public = KEYS["rsa"][1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "eve",
        "exp": int(time.time()) + 600,
        "realm_access": {"roles": ["root"]},
    }
    body = ".".join(_b64(orjson.dumps(part)) for part in ({"alg": "HS256", "kid": "rsa", "typ": "JWT"}, claims))
    forged = f"{body}.{_b64(hmac.digest(public, body.encode(), 'sha256'))}"
    unsigned = jwt.encode(claims, None, algorithm="none", headers={"kid": "rsa"})
    crossed = jwt.encode(claims, KEYS["ec"][1], algorithm="ES256", headers={"kid": "rsa"})
    for token in (forged, unsigned, crossed, "a.b.c", "..", signed()[:-4] + "AAAA"):
        assert (await asked(api, token))[0] == 401


async def test_a_new_key_is_found_and_unknown_ones_do_not_flood_the_issuer(
    own_api: RunningApi, own_issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, issuer = own_api, own_issuer
    issuer.published = ["rsa"]
    assert (await asked(api, signed("rsa")))[0] == 200
    for _ in range(20):
        assert (await asked(api, signed("ec")))[0] == 401
    assert issuer.fetches == 1
    issuer.published = ["rsa", "ec"]
    monkeypatch.setattr("services.api.auth.oidc.REFETCH_SECONDS", 0.0)
    assert (await asked(api, signed("ec")))[0] == 200
    assert issuer.fetches == 2


async def test_an_issuer_that_is_away_is_told_apart_from_a_bad_token(own_api: RunningApi, own_issuer: Issuer) -> None:
    api, issuer = own_api, own_issuer
    issuer.is_down = True
    status, answer = await asked(api, signed())
    assert status == 503
    assert answer["detail"]["code"] == "issuer_unavailable"
    assert (await asked(api, signed()))[0] == 503
    assert issuer.fetches == 1


async def test_api_tokens_and_the_internal_token_work_beside_jwts(api: RunningApi) -> None:
    status, made = await api.request(
        "POST", "/api/tokens", {"name": "ci", "role": "viewer"}, headers={"X-Session-Token": signed(roles=("root",))}
    )
    assert status == 201
    assert made["created_by"] == "oidc:ada"
    assert (await asked(api, made["token"]))[0] == 200
    assert (await asked(api, TOKEN))[0] == 200
