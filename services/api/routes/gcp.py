"""POST /api/gcp/token: access tokens of Google Cloud for playbooks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import orjson
from aiohttp import web
from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from services.api.auth.roles import Access
from services.api.gcp import DEFAULT_SCOPES, AccessToken, Endpoints, token_of_info, token_of_metadata
from services.api.http import Call, HttpError, RouteTable, not_found, reply, unprocessable
from services.api.inputs import OptionalKey, ShortText
from services.api.inputs import Text as Description
from services.api.models import NAME_MAX, Lax, Text
from services.api.secret_access import opened, record
from services.api.secrets_at_rest import seal
from services.api.store import credentials as store

routes = RouteTable("credentials")

SCOPES_MAX = 50
TAGS_MAX = 100
INFO_CHARS_MAX = 32_768


def _listed(value: object) -> object:
    """Take `a b` and `a,b` for a list."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _name(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class TokenBody(Lax):
    """Body of `POST /api/gcp/token`: one source of credentials, and what to do with the token."""

    scopes: Annotated[Annotated[list[ShortText], Field(max_length=SCOPES_MAX)] | None, BeforeValidator(_listed)] = None
    credentials_info: dict[str, Any] | Annotated[str, Field(max_length=INFO_CHARS_MAX)] | None = Field(
        None, description="a key file of Google Cloud, as an object or as its JSON text"
    )
    credential: Annotated[
        OptionalKey,
        BeforeValidator(_name),
        Field(
            validation_alias=AliasChoices("credential", "credential_name", "credential_id"),
            description="name or id of a stored credential whose data is such a key",
        ),
    ] = None
    credentials_path: OptionalKey = Field(None, description="a file in NOETL_GCP_CREDENTIALS_DIR of the server")
    use_metadata: bool = Field(False, description="the service account of the machine")
    service_account_secret: OptionalKey = Field(None, description="not possible here: needs Google's libraries")
    store_as: Annotated[Text, Field(min_length=1, max_length=NAME_MAX)] | None = Field(
        None, description="keep the token as a credential"
    )
    store_type: Text = Field("httpBearerAuth", min_length=1, max_length=NAME_MAX)
    store_meta: dict[str, Any] | None = None
    store_description: Description | None = None
    store_tags: Annotated[Annotated[list[ShortText], Field(max_length=TAGS_MAX)] | None, BeforeValidator(_listed)] = (
        None
    )


class TokenReply(BaseModel):
    """Answer of `POST /api/gcp/token`; `token_expiry` is ISO 8601 with offset."""

    access_token: str
    token_expiry: str | None
    scopes: list[str] | None


def _parsed(text: str, place: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise unprocessable(["body", place], "must be an object, or the JSON text of one") from error
    if not isinstance(found, dict):
        raise unprocessable(["body", place], "must be an object, or the JSON text of one")
    return found


async def _stored(call: Call, name: str) -> dict[str, Any]:
    row = await store.find(call.context.database, name)
    if row is None:
        raise not_found("Credential not found")
    data = await opened(call, row["data_encrypted"], table=store.TABLE, row=row["name"], operation="use")
    inner = data.get("credentials_info") or data.get("service_account_json") if isinstance(data, dict) else None
    found = inner or data
    return _parsed(found, "credential") if isinstance(found, str) else dict(found) if isinstance(found, dict) else {}


def _read_file(directory: str, name: str) -> str:
    """Return the text of a file inside `directory`, which nothing leads out of."""
    root = Path(directory).resolve()
    file = (root / name).resolve()
    if not file.is_relative_to(root) or not file.is_file() or file.stat().st_size > INFO_CHARS_MAX:
        raise unprocessable(["body", "credentials_path"], "no such file in NOETL_GCP_CREDENTIALS_DIR")
    return file.read_text(encoding="utf-8", errors="replace")


async def _info(call: Call, body: TokenBody) -> dict[str, Any]:
    if body.credentials_info is not None:
        given = body.credentials_info
        return _parsed(given, "credentials_info") if isinstance(given, str) else given
    if body.credential is not None:
        return await _stored(call, body.credential)
    if body.credentials_path is not None:
        directory = call.context.settings.noetl_gcp_credentials_dir
        if not directory:
            raise unprocessable(["body", "credentials_path"], "NOETL_GCP_CREDENTIALS_DIR is not set on this server")
        return _parsed(await asyncio.to_thread(_read_file, directory, body.credentials_path), "credentials_path")
    if body.service_account_secret is not None:
        text = "Secret Manager needs Google's libraries; store the key as a credential and name it in `credential`"
        raise unprocessable(["body", "service_account_secret"], text)
    raise HttpError(
        422,
        "No credential source specified. Provide one of: credentials_info, credentials_path, use_metadata=True, "
        "or service_account_secret",
    )


async def _keep(call: Call, body: TokenBody, name: str, token: AccessToken) -> None:
    data = {
        "token": token.token,
        "access_token": token.token,
        "token_expiry": token.expires_at.isoformat(),
        "scopes": list(token.scopes),
    }
    await store.save(
        call.context.database,
        store.NewCredential(
            credential_id=call.context.ids.next(),
            name=name,
            type=body.store_type,
            data_encrypted=seal(call.context.cipher, data, table=store.TABLE, row=name),
            meta=body.store_meta,
            tags=body.store_tags,
            description=body.store_description,
        ),
    )
    await record(call, name, "write", key_id=call.context.cipher.current)


@routes.add(
    "POST",
    "/api/gcp/token",
    "An access token of Google Cloud",
    role=Access.WORKER,
    body=TokenBody,
    response=TokenReply,
    errors=(404, 503),
)
async def gcp_token(call: Call) -> web.StreamResponse:
    """Exchange a key for a token at the configured endpoint, and keep it as a credential when asked to."""
    settings = call.context.settings
    if not settings.noetl_enable_gcp_token_api:
        raise not_found("the GCP token API is disabled: NOETL_ENABLE_GCP_TOKEN_API=false")
    body: TokenBody = call.body
    endpoints = Endpoints(token_url=settings.noetl_gcp_token_url, metadata_url=settings.noetl_gcp_metadata_url)
    scopes = tuple(body.scopes or DEFAULT_SCOPES)
    if body.use_metadata and body.credentials_info is None and body.credential is None:
        token = await token_of_metadata(scopes, endpoints)
    else:
        token = await token_of_info(await _info(call, body), scopes, endpoints)
    if body.store_as is not None:
        await _keep(call, body, body.store_as.strip(), token)
    document = {
        "access_token": token.token,
        "token_expiry": token.expires_at.isoformat(),
        "scopes": list(token.scopes),
    }
    return reply(document, headers={"Cache-Control": "no-store"})
