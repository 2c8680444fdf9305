"""Secrets given out: sealed for a worker, recorded with who asked, gone when they expire."""

from __future__ import annotations

import base64
import json
from typing import Any

import asyncpg
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.api.store import keychain
from services.api.store.database import Database
from tests.support.api import TOKEN, RunningApi

GATE = {"Authorization": f"Bearer {TOKEN}"}
PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: secrets, path: tests/secrets}
workflow: [{step: start, tool: {kind: noop}}]
"""


def opened_by(key: X25519PrivateKey, envelope: dict[str, Any]) -> Any:
    """Open an envelope as the Rust worker does."""
    sender = X25519PublicKey.from_public_bytes(base64.b64decode(envelope["eph_pub"]))
    derived = HKDF(algorithm=SHA256(), length=44, salt=None, info=b"noetl-sealed-v1").derive(key.exchange(sender))
    bound = f"{envelope['alg']}|v={envelope['v']}".encode()
    return json.loads(
        ChaCha20Poly1305(derived[:32]).decrypt(derived[32:], base64.b64decode(envelope["ciphertext"]), bound)
    )


async def save(api: RunningApi, name: str = "db") -> None:
    body = {"name": name, "type": "postgres", "data": {"password": "planted"}}
    assert (await api.request("POST", "/api/credentials", body))[0] == 200


async def register(api: RunningApi, name: str, runtime: object) -> None:
    body = {"name": name, "component_type": "worker_pool", "runtime": runtime, "status": "ready"}
    assert (await api.request("POST", "/api/worker/pool/register", body))[0] == 200


def encoded(key: X25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


async def accesses(api: RunningApi, query: str = "") -> list[dict[str, Any]]:
    status, answer = await api.request("GET", f"/api/internal/secret-audit{query}", headers=GATE)
    assert status == 200
    return list(answer["rows"])


async def test_a_sealed_credential_opens_with_the_workers_key_alone(api: RunningApi) -> None:
    key, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    await save(api)
    await register(api, "rust-1", {"kind": "rust", "worker_public_key": encoded(key)})
    status, envelope = await api.request("GET", "/api/credentials/db/sealed?worker_id=rust-1&execution_id=7")
    assert status == 200
    assert set(envelope) == {"alg", "v", "eph_pub", "ciphertext"}
    assert "planted" not in str(envelope)
    credential = opened_by(key, envelope)
    assert credential["data"] == {"password": "planted"}
    assert isinstance(credential["id"], str)
    assert (credential["name"], credential["type"], credential["tags"]) == ("db", "postgres", [])
    with pytest.raises(InvalidTag):
        opened_by(other, envelope)
    with pytest.raises(InvalidTag):
        opened_by(key, {**envelope, "v": 2})
    (row,) = await accesses(api, "?execution_id=7")
    assert (row["operation"], row["worker_id"], row["outcome"]) == ("sealed", "rust-1", "ok")


async def test_two_envelopes_share_nothing(api: RunningApi) -> None:
    key = X25519PrivateKey.generate()
    await save(api)
    await register(api, "rust-1", {"worker_public_key": encoded(key)})
    one, two = [(await api.request("GET", "/api/credentials/db/sealed?worker_id=rust-1"))[1] for _ in range(2)]
    assert one["eph_pub"] != two["eph_pub"]
    assert one["ciphertext"] != two["ciphertext"]


async def test_a_server_of_another_region_gets_a_credential_sealed_for_its_worker(api: RunningApi) -> None:
    key = X25519PrivateKey.generate()
    body = {"name": "db", "type": "postgres", "data": {"password": "planted"}, "meta": {"region": "eu"}}
    assert (await api.request("POST", "/api/credentials", body))[0] == 200
    path = "/api/internal/cross-region/resolve"
    wanted = {"alias": "db", "worker_public_key_b64": encoded(key), "worker_id": "rust-1", "execution_id": 7}
    wanted |= {"expected_entry_region": "eu", "requesting_region": "us"}
    status, envelope = await api.request("POST", path, wanted, headers=GATE)
    assert (status, opened_by(key, envelope)["data"]) == (200, {"password": "planted"})
    for change, expected in (
        ({"expected_entry_region": "us"}, 403),
        ({"alias": "nobody"}, 404),
        ({"worker_public_key_b64": "short"}, 400),
    ):
        status, answer = await api.request("POST", path, {**wanted, **change}, headers=GATE)
        assert (status, "planted" in str(answer)) == (expected, False)
    assert (await api.request("POST", path, wanted))[0] == 403
    found = [(row["operation"], row["outcome"]) for row in await accesses(api)]
    assert found == [
        ("cross_region", "not_found"),
        ("cross_region", "refused"),
        ("cross_region", "ok"),
        ("write", "ok"),
    ]


@pytest.mark.parametrize(
    ("runtime", "query", "status"),
    [
        ("python", "?worker_id=w", 400),
        ({"worker_public_key": "AAAA"}, "?worker_id=w", 400),
        ({"worker_public_key": base64.b64encode(bytes(32)).decode()}, "?worker_id=w", 400),
        ({"worker_public_key": 5}, "?worker_id=w", 400),
        ("python", "?worker_id=nobody", 404),
        ("python", "", 422),
    ],
)
async def test_without_a_key_nothing_is_sealed(
    shared_api: RunningApi, runtime: object, query: str, status: int
) -> None:
    await save(shared_api)
    await register(shared_api, "w", runtime)
    found, answer = await shared_api.request("GET", f"/api/credentials/db/sealed{query}")
    assert found == status, answer
    assert "planted" not in str(answer)


async def test_every_access_to_a_secret_is_recorded_with_who_and_for_what(api: RunningApi, database_dsn: str) -> None:
    await save(api)
    await api.request("GET", "/api/credentials/db")
    await api.request("GET", "/api/credentials/db?include_data=true&execution_id=11&parent_execution_id=10")
    await api.request("GET", "/api/credentials/none?include_data=true")
    await api.request("DELETE", "/api/credentials/db")
    _, entry = await api.request("POST", "/api/catalog/register", {"content": PLAYBOOK})
    path = f"/api/keychain/{entry['catalog_id']}/tok"
    await api.request("POST", path, {"token_data": {"t": "planted"}, "credential_type": "bearer"})
    await api.request("GET", path)
    await api.request("GET", path + "x")
    await api.request("DELETE", path)
    rows = await accesses(api)
    key = f"tok:{entry['catalog_id']}:global"
    assert [(row["credential"], row["operation"], row["outcome"]) for row in rows][::-1] == [
        ("db", "write", "ok"),
        ("db", "read", "ok"),
        ("none", "read", "not_found"),
        ("db", "delete", "ok"),
        (key, "keychain_write", "ok"),
        (key, "keychain_read", "ok"),
        (key, "keychain_delete", "ok"),
    ]
    read = rows[-2]
    assert (read["execution_id"], read["parent_execution_id"], read["actor"]) == (11, 10, "anonymous")
    assert read["kek_version"] == rows[-1]["kek_version"] != ""
    assert set(read) >= {"audit_id", "occurred_at", "worker_id", "server_region", "broker_region", "notes"}
    assert "planted" not in str(rows)
    assert await accesses(api, f"?credential=db&limit=1&before={rows[-1]['audit_id'] + 1}") == [rows[-1]]


async def test_no_secret_is_given_out_when_the_access_cannot_be_recorded(api: RunningApi, database_dsn: str) -> None:
    await save(api)
    connection = await asyncpg.connect(database_dsn)
    await connection.execute("ALTER TABLE noetl.secret_access RENAME TO gone")
    status, answer = await api.request("GET", "/api/credentials/db?include_data=true")
    assert status == 503
    assert answer["detail"]["code"] == "secret_audit_unavailable"
    assert "planted" not in str(answer)
    await connection.execute("ALTER TABLE noetl.gone RENAME TO secret_access")
    await connection.close()
    assert (await api.request("GET", "/api/credentials/db?include_data=true"))[0] == 200


async def test_expired_entries_answer_as_the_original_and_are_purged(api: RunningApi, database_dsn: str) -> None:
    _, entry = await api.request("POST", "/api/catalog/register", {"content": PLAYBOOK})
    base = f"/api/keychain/{entry['catalog_id']}"
    body = {"token_data": {"t": "planted"}, "credential_type": "bearer", "expires_at": "2020-01-01T00:00:00"}
    await api.request("POST", f"{base}/renewed", {**body, "auto_renew": True, "renew_config": {"endpoint": "e"}})
    _, answer = await api.request("GET", f"{base}/renewed")
    assert (answer["status"], answer["token_data"], answer["renew_config"]) == ("expired", None, {"endpoint": "e"})
    await api.request("POST", f"{base}/dead", body)
    assert (await api.request("GET", f"{base}/dead"))[1]["status"] == "not_found"
    database = await Database.open(database_dsn, size_min=1, size_max=1)
    await keychain.purge_expired(database, limit=100)
    names = await database.fetch("SELECT keychain_name FROM noetl.keychain")
    await database.close()
    assert [row["keychain_name"] for row in names] == ["renewed"]


@pytest.mark.parametrize(
    ("scope", "stored", "key"),
    [
        ("execution", "local", "tok:{}:9"),
        ("catalog", "global", "tok:{}:global"),
        ("shared", "shared", "tok:{}:shared:9"),
    ],
)
async def test_scopes_go_by_the_names_of_playbooks_too(
    shared_api: RunningApi, scope: str, stored: str, key: str
) -> None:
    _, entry = await shared_api.request("POST", "/api/catalog/register", {"content": PLAYBOOK})
    path = f"/api/keychain/{entry['catalog_id']}/tok"
    body = {"token_data": {"t": "x"}, "credential_type": "bearer", "scope_type": scope, "execution_id": 9}
    status, answer = await shared_api.request("POST", path, body)
    assert (status, answer["cache_key"]) == (200, key.format(entry["catalog_id"]))
    _, answer = await shared_api.request("GET", f"{path}?scope_type={stored}&execution_id=9")
    assert (answer["status"], answer["scope_type"]) == ("success", stored)


async def test_the_rust_servers_body_is_understood(api: RunningApi) -> None:
    _, entry = await api.request("POST", "/api/catalog/register", {"content": PLAYBOOK})
    path = f"/api/keychain/{entry['catalog_id']}/tok"
    status, answer = await api.request("POST", path, {"data": {"t": "x"}, "scope_type": "global", "expires_in": 60})
    assert (status, answer["ttl_seconds"]) == (200, 60)
    _, answer = await api.request("GET", path)
    assert (answer["token_data"], answer["credential_type"], answer["cache_type"]) == ({"t": "x"}, "secret", "secret")
