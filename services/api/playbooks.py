"""Parsed playbooks by catalog id. A catalog entry never changes, so the cache needs a bound but no expiry."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.api.http import HttpError, not_found
from services.api.store.catalog import VERSION_MAX
from services.api.store.queries import queries
from shared.engine import Playbook, PlaybookError, parse_playbook
from shared.wire.types import parse_id

if TYPE_CHECKING:
    from services.api.store.database import Database

CACHE_MAX = 256  # parsed playbooks kept; a typical one takes some tens of KiB
EXECUTABLE_KINDS = ("playbook", "agent")

_SQL = queries("execution")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An executable catalog entry and its parsed document."""

    catalog_id: int
    path: str
    version: int
    kind: str
    playbook: Playbook


def requested_version(value: object) -> int | None:
    """Return the version that a request or a playbook asks for, None for the newest.

    Raises:
        ValueError: it is neither a number in range nor "latest".
    """
    if value is None or value == "latest":
        return None
    text = str(value).removesuffix(".0")  # the GUI has versions such as "2.0"
    if text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) <= VERSION_MAX:
        return int(text)
    raise ValueError(f'version must be an integer from 1 to {VERSION_MAX}, or "latest"')


class PlaybookCatalog:
    """Finds what `POST /api/execute` names."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._parsed: OrderedDict[int, Playbook] = OrderedDict()

    async def find(
        self,
        *,
        path: str | None,
        catalog_id: int | None,
        version: int | None,
        kinds: tuple[str, ...] = EXECUTABLE_KINDS,
    ) -> Entry:
        """Return the entry; `catalog_id` wins over `path`, no version means the newest.

        A path of digits that is no path of the catalog is a catalog id: the CLI sends what it calls a db id that way.

        Raises:
            HttpError: 404 when there is none, 422 when its document is not executable.
        """
        if catalog_id is not None:
            row = await self._database.fetchrow(_SQL["executable_by_id"], catalog_id, list(kinds))
            missing = f"catalog_id={catalog_id}"
        else:
            row = await self._database.fetchrow(_SQL["executable"], path, version, list(kinds))
            missing = path or ""
            number = parse_id(missing) if row is None else None
            if number is not None:
                row = await self._database.fetchrow(_SQL["executable_by_id"], number, list(kinds))
        if row is None:
            raise not_found(f"Executable catalog entry not found: {missing}")
        return Entry(
            catalog_id=row["catalog_id"],
            path=row["path"],
            version=row["version"],
            kind=row["kind"],
            playbook=self._parse(row["catalog_id"], row["content"] or ""),
        )

    def _parse(self, catalog_id: int, content: str) -> Playbook:
        found = self._parsed.get(catalog_id)
        if found is not None:
            self._parsed.move_to_end(catalog_id)
            return found
        try:
            playbook = parse_playbook(content)
        except PlaybookError as error:
            raise HttpError(422, f"catalog_id={catalog_id} is not an executable playbook: {error}") from error
        self._parsed[catalog_id] = playbook
        if len(self._parsed) > CACHE_MAX:
            self._parsed.popitem(last=False)
        return playbook
