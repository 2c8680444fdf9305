"""The record of every access to a secret: written before the secret is given out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import asyncpg

from services.api.http import Call, HttpError, overloaded
from services.api.metrics import SECRET_ACCESSES
from services.api.secrets_at_rest import unseal
from services.api.store import audit as store
from services.api.store.audit import SecretAccess

if TYPE_CHECKING:
    from typing import Any

log = logging.getLogger(__name__)


async def record(
    call: Call,
    credential: str,
    operation: str,
    outcome: str = "ok",
    *,
    worker_id: str | None = None,
    execution_id: int | None = None,
    parent_execution_id: int | None = None,
    key_id: str | None = None,
    notes: str | None = None,
) -> None:
    """Store one access; `operation` and `outcome` as in migration 0030.

    Raises:
        HttpError: 503 when it cannot be stored and NOETL_SECRET_AUDIT_REQUIRED is set.
    """
    SECRET_ACCESSES.labels(operation, outcome).inc()
    access = SecretAccess(
        credential=credential,
        operation=operation,
        outcome=outcome,
        actor=call.actor.label,
        worker_id=worker_id,
        execution_id=execution_id,
        parent_execution_id=parent_execution_id,
        key_id=key_id,
        notes=notes,
    )
    try:
        await store.record_access(call.context.database, access)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.error("access to a secret not recorded", extra={"error": type(error).__name__})  # noqa: TRY400 - the name says it
        if call.context.settings.noetl_secret_audit_required:
            raise overloaded("secret_audit_unavailable", "the access cannot be recorded; try again") from error


async def opened(call: Call, text: str, *, table: str, row: str, operation: str, **who: Any) -> Any:
    """Return the value of a stored text after recording the access; `who` as in `record`.

    Raises:
        HttpError: 500 or 503 when it cannot be opened (which is recorded too) or the access cannot be recorded.
    """
    cipher = call.context.cipher
    try:
        value = unseal(cipher, text, table=table, row=row)
    except HttpError:
        await record(call, row, operation, "failed", key_id=cipher.key_of(text), **who)
        raise
    await record(call, row, operation, key_id=cipher.key_of(text), **who)
    return value
