"""The keys that protect stored secrets: whether all of them are there, and encrypting everything with the newest.

Rotation works in small transactions that lock what they change and leave out what others work on, so it runs beside the
traffic, on several replicas, and goes on where it was when it is interrupted: what is under the current key is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from services.api.crypto import Cipher, CipherError
from services.api.http import HttpError
from services.api.store import credentials, keychain
from services.api.store import wallet as store
from shared.platform.tracing import span

if TYPE_CHECKING:
    from services.api.store.database import Database

log = logging.getLogger(__name__)

OUR_FORMS = ("v1.", "v2.")  # what is encrypted anew without being asked; the original's forms only on request
BACKGROUND_ROWS, BACKGROUND_BATCHES = 100, 10  # per turn of the housekeeping
PROBLEMS_MAX = 20


@dataclass(slots=True)
class Rotated:
    """What happened to the rows of one table."""

    processed: int = 0
    rewrapped: int = 0
    skipped: int = 0
    failed: int = 0
    last_id: str | None = None


class Wallet:
    """The state of the keys, as of the last look."""

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher
        self.problems: list[str] = []
        self._has_old = False  # of our own forms

    async def status(self) -> dict[str, Any]:
        """Look at what is stored and return how many values each key protects; `problems` name keys that are missing.

        Raises:
            OSError, asyncpg.PostgresError: the database cannot be used.
        """
        counts: dict[str, dict[str, int]] = {"credential": {}, "keychain": {}}
        problems: list[str] = []
        old = False
        for row in await store.labels(self._database):
            label = self._cipher.key_of(row["value"])
            table = counts[row["place"].partition(".")[0]]
            table[label] = table.get(label, 0) + row["number"]
            old = old or (row["value"].startswith(OUR_FORMS) and not self._cipher.is_current(row["value"]))
            problem = self._problem(row)
            if problem is not None:
                problems.append(problem)
        if problems and problems != self.problems:
            log.error("stored secrets cannot be read", extra={"problems": problems[:PROBLEMS_MAX]})
        self.problems, self._has_old = problems[:PROBLEMS_MAX], old
        return {
            **counts,
            "current": self._cipher.current,
            "keys": list(self._cipher.key_ids),
            "problems": self.problems,
        }

    def _problem(self, row: Mapping[str, Any]) -> str | None:
        try:
            self._cipher.decrypt(row["value"], table=row["place"], row=row["row_key"])
        except CipherError as error:
            return f"{row['number']} values of {row['place']} cannot be read: {error}"
        return None

    async def look(self) -> None:
        """Refresh `problems`, and encrypt some values of older keys anew."""
        await self.status()
        if self._has_old and self._cipher.can_encrypt:
            await self.rotate(batch_size=BACKGROUND_ROWS, max_batches=BACKGROUND_BATCHES, forms=OUR_FORMS)

    async def rotate(self, *, batch_size: int, max_batches: int, forms: Sequence[str] | None = None) -> dict[str, Any]:
        """Encrypt up to `max_batches` batches of each table with the current key; `forms` limits it to these beginnings.

        Raises:
            HttpError: 503 when no key is configured.
        """
        if not self._cipher.can_encrypt:
            raise HttpError(503, {"code": "encryption_key_missing", "message": "no encryption key is configured"})
        totals = {"credential": Rotated(), "keychain": Rotated()}
        more = False
        with span("wallet rotate"):
            for table, batch in (("credential", self._credentials), ("keychain", self._keychain)):
                done, full = totals[table], True
                for _ in range(max_batches):
                    full = await batch(done, batch_size, forms) == batch_size
                    if not full:
                        break
                more = more or full
        if any(total.processed for total in totals.values()):
            log.info("keys rotated", extra={table: asdict(total) for table, total in totals.items()})
        return {**{table: asdict(total) for table, total in totals.items()}, "more": more}

    async def _credentials(self, total: Rotated, limit: int, forms: Sequence[str] | None) -> int:
        async with self._database.transaction() as connection:
            rows = await store.credentials_to_rewrap(
                connection, current=self._current, forms=forms, after=int(total.last_id or 0), limit=limit
            )
            values: dict[int, str] = {}
            for row in rows:
                value = self._rewrapped(total, row["data_encrypted"], table=credentials.TABLE, row=row["name"])
                if value is not None:
                    values[row["id"]] = value
            await store.update_credentials(connection, values)
        if rows:
            total.last_id = str(rows[-1]["id"])
        return len(rows)

    async def _keychain(self, total: Rotated, limit: int, forms: Sequence[str] | None) -> int:
        async with self._database.transaction() as connection:
            rows = await store.keychain_to_rewrap(
                connection, current=self._current, forms=forms, after=total.last_id or "", limit=limit
            )
            values: dict[str, tuple[str, str | None]] = {}
            for row in rows:
                key = row["cache_key"]
                value = self._rewrapped(total, row["data_encrypted"], table=keychain.TABLE, row=key)
                if value is not None:
                    values[key] = (value, self._renewal(total, row["renew_config"], key))
            await store.update_keychain(connection, values)
        if rows:
            total.last_id = rows[-1]["cache_key"]
        return len(rows)

    @property
    def _current(self) -> str:
        return f"v2.{self._cipher.current}."

    def _renewal(self, total: Rotated, text: str | None, key: str) -> str | None:
        if text is None or self._cipher.is_current(text):
            return None
        try:
            return self._cipher.rewrap(text, table=keychain.RENEW_TABLE, row=key)
        except CipherError:
            total.failed += 1
            return None

    def _rewrapped(self, total: Rotated, text: str, *, table: str, row: str) -> str | None:
        """Return the value under the current key, None when it cannot be read; counts either."""
        total.processed += 1
        if self._cipher.is_current(text):
            total.skipped += 1
            return text
        try:
            value = self._cipher.rewrap(text, table=table, row=row)
        except CipherError as error:
            total.failed += 1
            log.warning("a stored secret cannot be encrypted anew", extra={"table": table, "error": str(error)})
            return None
        total.rewrapped += 1
        return value
