"""Check a document and store it in the catalog; what is wrong with it is named with its line and key."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from services.api.http import HttpError
from services.api.playbooks import EXECUTABLE_KINDS
from services.api.store import catalog as store
from shared.engine import PlaybookError, Problem, check_playbook, read_document
from shared.platform.tracing import span

if TYPE_CHECKING:
    from services.api.context import ApiContext

log = logging.getLogger(__name__)

PATH_CHARS_MAX = 512  # a path is a key of a B-tree index, whose entries have 2704 bytes at most (4 bytes a character)
KIND_CHARS_MAX = 64
PROBLEMS_SHOWN = 5  # in the text of a refusal; the rest are counted there and listed beside it
HEADER_CHARS_MAX = 2000  # of warnings in a response header; clients take 8 KiB of all headers
INLINE_CHARS_MAX = 32_768  # a longer document is checked in a thread: the largest takes seconds

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+=?=?\s*")
_SINGULAR = {
    "playbooks": "playbook",
    "agents": "agent",
    "mcps": "mcp",
    "memories": "memory",
    "credentials": "credential",
    "subscriptions": "subscription",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A new catalog entry; `warnings` are findings that do not keep it from running."""

    catalog_id: int
    path: str
    version: int
    kind: str
    warnings: list[Problem]


def decoded(content: str) -> str:
    """Return the document's text: base64 of UTF-8 is decoded, anything else is the text itself."""
    if _BASE64.fullmatch(content) is None:
        return content
    try:
        return base64.b64decode("".join(content.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return content


def catalog_kind(kind: str) -> str:
    """Return a kind as the catalog spells it: lower case, singular."""
    lower = kind.strip().lower()
    return _SINGULAR.get(lower, lower)


def warning_headers(problems: list[Problem]) -> dict[str, str]:
    """Return `X-Playhead-Warnings` (the first ones, in words) and `X-Playhead-Warnings-Count`; nothing without warnings."""
    if not problems:
        return {}
    text = "; ".join(map(str, problems))
    shown = "".join(char if " " <= char <= "~" else "?" for char in text[:HEADER_CHARS_MAX])  # a header is ASCII
    more = " ..." if len(text) > HEADER_CHARS_MAX else ""
    return {"X-Playhead-Warnings": shown + more, "X-Playhead-Warnings-Count": str(len(problems))}


def _refusal(name: str, kind: str, problems: list[Problem]) -> HttpError:
    """Return the 422: `detail` is the text of the original with the first problems, `problems` has every one."""
    errors = [str(problem) for problem in problems if problem.severity == "error"]
    more = f" … (+{len(errors) - PROBLEMS_SHOWN} more)" if len(errors) > PROBLEMS_SHOWN else ""
    return HttpError(
        422,
        f"register_resource: '{name}' is not a valid {kind}: {'; '.join(errors[:PROBLEMS_SHOWN])}{more}",
        more={"problems": [asdict(problem) for problem in problems]},
    )


def _name_of(document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    sources = (metadata if isinstance(metadata, Mapping) else {}, document)
    found = [source.get(key) for source in sources for key in ("path", "name")]
    return str(next((value for value in found if value), "unknown"))


def _meta(document: Mapping[str, Any], kind: str, warnings: list[Problem]) -> dict[str, Any]:
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    terminal = metadata.get("terminal")
    terminal = terminal if isinstance(terminal, Mapping) else {}
    capabilities = metadata.get("capabilities")
    return {
        "registered_at": datetime.now(UTC).isoformat(),
        "agent": kind == "agent" or metadata.get("agent") is True,
        "capabilities": [str(item) for item in capabilities] if isinstance(capabilities, list) else [],
        "terminal": terminal,
        "terminal_visible": terminal.get("visible") is True,
        "terminal_scopes": terminal["scopes"] if isinstance(terminal.get("scopes"), list) else [],
        **({"warnings": [asdict(warning) for warning in warnings]} if warnings else {}),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A document that can be stored."""

    document: dict[str, Any]
    name: str
    kind: str
    warnings: list[Problem]


def _check(text: str, resource_type: str, *, strict: bool) -> Checked:
    try:
        read = read_document(text)
    except PlaybookError as error:
        raise _refusal("document", "document", error.problems) from error
    name = _name_of(read.data)
    kind = catalog_kind(str(read.data.get("kind") or resource_type))
    _check_names(name, kind)
    warnings: list[Problem] = []
    if kind in EXECUTABLE_KINDS:
        playbook, problems = check_playbook(read, strict=strict)
        if playbook is None:
            raise _refusal(name, kind, problems)
        warnings = problems
    return Checked(document=read.data, name=name, kind=kind, warnings=warnings)


async def check_document(context: ApiContext, text: str, resource_type: str) -> Checked:
    """Return `text` as a document that can be stored; nothing is.

    Raises:
        HttpError: 422 naming every problem with its line and key.
    """
    strict = context.settings.noetl_registration_strict
    if len(text) > INLINE_CHARS_MAX:
        return await asyncio.to_thread(_check, text, resource_type, strict=strict)
    return _check(text, resource_type, strict=strict)


async def register(context: ApiContext, *, content: str, resource_type: str, path: str | None = None) -> Registered:
    """Store `content` as the next version of its path, which must be `path` when one is given.

    Raises:
        HttpError: 422 naming every problem with its line and key, when the document cannot be read or run, or has warnings
            and NOETL_REGISTRATION_STRICT or its own `executor.spec.strict` makes them errors.
    """
    text = decoded(content)
    with span("catalog register"):
        checked = await check_document(context, text, resource_type)
        if path is not None and checked.name != path:
            raise HttpError(
                422, f"metadata.path is '{checked.name}', but what is saved is '{path}'; register it instead"
            )
        entry = store.NewEntry(
            catalog_id=context.ids.next(),
            path=checked.name,
            kind=checked.kind,
            content=text,
            payload=checked.document,
            meta=_meta(checked.document, checked.kind, checked.warnings),
        )
        try:
            version = await store.register(context.database, entry)
        except store.VersionsExhaustedError as error:
            raise HttpError(
                422, f"path '{checked.name}' has {store.VERSION_MAX} versions; register under another path"
            ) from error
    log.info("registered", extra={"path": entry.path, "version": version, "kind": entry.kind})
    return Registered(
        catalog_id=entry.catalog_id, path=entry.path, version=version, kind=entry.kind, warnings=checked.warnings
    )


def _check_names(name: str, kind: str) -> None:
    if len(name) > PATH_CHARS_MAX or "\x00" in name:
        raise HttpError(422, f"metadata.path has at most {PATH_CHARS_MAX} characters and no NUL")
    if not 1 <= len(kind) <= KIND_CHARS_MAX or "\x00" in kind:
        raise HttpError(422, f"kind has 1 to {KIND_CHARS_MAX} characters and no NUL")
