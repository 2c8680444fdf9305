"""What may differ between two servers: masks for what must (clocks, minted ids), differences for what does on purpose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from services.dev.parity.recordings import Request

DIFFERENCES_FILE = "differences.yaml"


class RuleError(Exception):
    """The file of differences cannot be used; the text names the entry and the fix."""


class MaskKind(StrEnum):
    """What of a masked value is still compared."""

    TYPE = "type"  # the JSON type
    TIME = "time"  # the format: every digit counts as 0
    ID = "id"  # everything but ids, in numbers and in texts
    ORDER = "order"  # everything but the order of a list
    ANY = "any"  # nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A place in the answers of a route that cannot be equal; `at` is a JSON pointer, `*` matches anything."""

    route: str
    at: str
    kind: MaskKind
    reason: str
    while_running: bool = False  # only where the object around it has no `end_time`

    def covers(self, request: Request) -> bool:
        """Whether the mask is for this request."""
        return route_matches(self.route, request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A place whose value differs; when it `says` so, only where Playhead's value is `playhead`."""

    at: str
    playhead: Any = None
    says: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A deliberate difference from the original, with its reason."""

    id: str
    routes: tuple[str, ...]
    reason: str
    reference: str
    recordings: tuple[str, ...]
    added: tuple[str, ...] = ()
    changed: tuple[Change, ...] = ()
    statuses: tuple[int, int] | None = None  # the original's and Playhead's; bodies are not compared then
    detail: str | None = None  # what Playhead's body must contain when statuses or bodies differ
    whole_body: bool = False
    headers: tuple[str, ...] = ()
    when: tuple[tuple[str, Any], ...] = ()  # members of the original's answer that must be so
    only_recorded: bool = False  # shows in the recorded sequence only, not between live servers

    def covers(self, request: Request) -> bool:
        """Whether the difference may be seen in an answer to this request."""
        return any(route_matches(route, request) for route in self.routes)


@cache
def _route_pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[a-z_]+\}|\*)", template)
    wild = {"*": ".*", "{path}": ".+"}
    made = [wild.get(part) or ("[^/]+" if part.startswith("{") else re.escape(part)) for part in parts]
    return re.compile("".join(made))


def route_matches(route: str, request: Request) -> bool:
    """Whether `route` ("GET /api/executions/{execution_id}", method `*` for any) is the route of `request`.

    The query counts only when the route names one.
    """
    method, _, template = route.partition(" ")
    if method not in ("*", request.method):
        return False
    path = request.path if "?" in template else request.path.partition("?")[0]
    return _route_pattern(template).fullmatch(path) is not None


@cache
def _place_pattern(at: str) -> re.Pattern[str]:
    return re.compile("".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", at)))


def place_matches(at: str, place: str) -> bool:
    """Whether the JSON pointer `place` is meant by `at`."""
    return _place_pattern(at).fullmatch(place) is not None


def _change(entry: object) -> Change:
    if isinstance(entry, str):
        return Change(at=entry)
    if isinstance(entry, dict) and isinstance(entry.get("at"), str):
        return Change(at=entry["at"], playhead=entry.get("playhead"), says="playhead" in entry)
    raise RuleError(f"a change is a JSON pointer or has `at`, not {entry!r}")


def _difference(entry: dict[str, Any]) -> Difference:
    statuses = entry.get("status")
    return Difference(
        id=entry["id"],
        routes=tuple(entry["routes"]),
        reason=entry["reason"],
        reference=entry["reference"],
        recordings=tuple(entry.get("recordings", ())),
        added=tuple(entry.get("added", ())),
        changed=tuple(_change(item) for item in entry.get("changed", ())),
        statuses=None if statuses is None else (int(statuses["original"]), int(statuses["playhead"])),
        detail=entry.get("detail"),
        whole_body=bool(entry.get("whole_body", False)),
        headers=tuple(entry.get("headers", ())),
        when=tuple((entry.get("when") or {}).items()),
        only_recorded=bool(entry.get("only_recorded", False)),
    )


def load_differences(file: Path | None = None) -> list[Difference]:
    """Return the deliberate differences of `file`, of this release when it is None.

    Raises:
        RuleError: an entry is incomplete, or an id stands twice.
    """
    source = resources.files("services.dev.parity").joinpath(DIFFERENCES_FILE) if file is None else file
    try:
        entries = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RuleError(f"{source}: {error}") from error
    found: list[Difference] = []
    for number, entry in enumerate(entries or ()):
        try:
            made = _difference(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise RuleError(f"{source}: entry {number + 1}: {error!r} is missing or wrong") from error
        if any(made.id == other.id for other in found):
            raise RuleError(f"{source}: {made.id} stands twice")
        found.append(made)
    return found


def masks_for(request: Request, masks: Sequence[Mask]) -> list[Mask]:
    """Return the masks that are for `request`."""
    return [mask for mask in masks if mask.covers(request)]
