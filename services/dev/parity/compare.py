"""Compare two answers to one request, byte for byte after masking. Pure: no I/O, no clock.

A JSON body is compared by value, by the order of its keys, by the text of its numbers and by its format (white space and
escapes), which together are its bytes; anything else is compared as bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from services.dev.parity.recordings import Answer, Request
from services.dev.parity.rules import Change, Difference, Mask, MaskKind, masks_for, place_matches

# `date`, `server`, `content-length` and the transfer are the server software's; these are promises to clients.
HEADERS = (
    "content-type",
    "allow",
    "location",
    "retry-after",
    "cache-control",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
)
DEPTH_MAX = 500  # levels of a JSON body that are compared
LINES_MAX = 200  # findings of one request
VALUE_CHARS_MAX = 160  # of a value in a finding
_ID = re.compile(r"\d{15,19}")
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Float:
    """A number as it was written, so that 1.0 and 1.00 differ."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place where two answers differ, for people."""

    at: str
    base: str
    other: str

    def __str__(self) -> str:
        return f"{self.at}: {self.base} -> {self.other}"


def _show(value: object) -> str:
    if value is _ABSENT:
        return "(absent)"
    if isinstance(value, Float):
        return value.text
    text = json.dumps(value, ensure_ascii=False, default=lambda item: getattr(item, "text", str(item)))
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}... ({len(text)} characters)"


def _parse(body: bytes) -> Any:
    """Return the JSON value of `body`, `_ABSENT` when it is no JSON."""
    try:
        return json.loads(body, parse_float=Float)
    except (ValueError, RecursionError):
        return _ABSENT


def _is_compact(body: bytes) -> bool:
    """Whether the body is written as every answer should be: no white space, no needless escapes."""
    return json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":")).encode() == body


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = ((type(None), "null"), (str, "string"), (int, "number"), (Float, "number"), (list, "array"))
    return next((name for kind, name in names if isinstance(value, kind)), "object")


def _masked(value: Any, kind: MaskKind) -> Any:
    if kind is MaskKind.TIME and isinstance(value, str):
        return re.sub(r"\d", "0", value)
    if kind is MaskKind.ID:
        return _without_ids(value)
    if kind is MaskKind.ORDER and isinstance(value, list):
        return sorted(value, key=_show)
    if kind is MaskKind.ANY:
        return "<any>"
    return f"<{_type_name(value)}>" if kind in (MaskKind.TYPE, MaskKind.TIME) else value


def _without_ids(value: Any) -> Any:
    if isinstance(value, str):
        return _ID.sub("<id>", value)
    if isinstance(value, int) and not isinstance(value, bool):
        return "<id number>" if _ID.fullmatch(str(value)) else value
    if isinstance(value, dict):
        return {_ID.sub("<id>", key): _without_ids(item) for key, item in value.items()}
    return [_without_ids(item) for item in value] if isinstance(value, list) else value


def _apply_masks(value: Any, masks: Sequence[Mask], place: str = "", parent: object = None) -> Any:
    for mask in masks:
        if place_matches(mask.at, place) and not (mask.while_running and _has_ended(parent)):
            value = _masked(value, mask.kind)
    if place.count("/") >= DEPTH_MAX:
        return value
    if isinstance(value, dict):
        return {key: _apply_masks(item, masks, f"{place}/{key}", value) for key, item in value.items()}
    if isinstance(value, list):
        return [_apply_masks(item, masks, f"{place}/{index}", value) for index, item in enumerate(value)]
    return value


def _has_ended(parent: object) -> bool:
    return isinstance(parent, dict) and parent.get("end_time") is not None


def _without(value: Any, places: frozenset[str], place: str = "") -> Any:
    """Return `value` without the members at `places`."""
    if not places:
        return value
    if isinstance(value, dict):
        return {
            key: _without(item, places, f"{place}/{key}")
            for key, item in value.items()
            if f"{place}/{key}" not in places
        }
    if isinstance(value, list):
        return [_without(item, places, f"{place}/{index}") for index, item in enumerate(value)]
    return value


def _members(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every member below `value` with its place."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield f"{place}/{key}", item
        yield from _members(item, f"{place}/{key}")


def _holds(difference: Difference, base: object) -> bool:
    return not difference.when or (
        isinstance(base, dict) and all(base.get(key) == value for key, value in difference.when)
    )


def _differences_between(base: Any, other: Any, place: str = "") -> Iterator[Finding]:
    if isinstance(base, dict) and isinstance(other, dict):
        for key in [*base, *(key for key in other if key not in base)]:
            yield from _differences_between(base.get(key, _ABSENT), other.get(key, _ABSENT), f"{place}/{key}")
        if [key for key in base if key in other] != [key for key in other if key in base]:
            yield Finding(at=f"{place} (order of keys)", base=_show(list(base)), other=_show(list(other)))
    elif isinstance(base, list) and isinstance(other, list):
        if len(base) != len(other):
            yield Finding(at=f"{place} (length)", base=str(len(base)), other=str(len(other)))
        for index, (one, two) in enumerate(zip(base, other, strict=False)):
            yield from _differences_between(one, two, f"{place}/{index}")
    elif _type_name(base) != _type_name(other) or base != other:
        yield Finding(at=place or "body", base=_show(base), other=_show(other))


def _header_findings(base: Answer, other: Answer, ignored: Sequence[str]) -> Iterator[Finding]:
    for name in HEADERS:
        one, two = base.headers.get(name), other.headers.get(name)
        if name == "location":  # relative to whichever server was asked
            one, two = (
                None if text is None else urlsplit(text)._replace(scheme="", netloc="").geturl() for text in (one, two)
            )
        if one != two and name not in ignored:
            yield Finding(at=f"header {name}", base=_show(one), other=_show(two))


def _body_findings(
    base: Answer, other: Answer, masks: Sequence[Mask], differences: Sequence[Difference]
) -> Iterator[Finding]:
    if base.body == other.body or any(mask.kind is MaskKind.ANY and mask.at == "*" for mask in masks):
        return
    one, two = _parse(base.body), _parse(other.body)
    if one is _ABSENT or two is _ABSENT:
        yield Finding(
            at="body", base=_show(base.body.decode(errors="replace")), other=_show(other.body.decode(errors="replace"))
        )
        return
    told = [difference for difference in differences if _holds(difference, one)]
    changed = [change for difference in told for change in difference.changed]
    added = [place for difference in told for place in difference.added]
    hidden, extra = _hidden_places(one, two, changed), _matching(two, added) if added else frozenset()
    one = _apply_masks(_without(one, hidden), masks)
    two = _apply_masks(_without(two, hidden | extra), masks)
    found = False
    for finding in _differences_between(one, two):
        found = True
        yield finding
    if not found and _is_compact(base.body) != _is_compact(other.body):
        yield Finding(
            at="body (white space or escapes)",
            base=_show(base.body[:80].decode(errors="replace")),
            other=_show(other.body[:80].decode(errors="replace")),
        )


def _hidden_places(base: Any, other: Any, changed: Sequence[Change]) -> frozenset[str]:
    if not changed:
        return frozenset()
    found = {
        place
        for place, item in _members(other)
        if any(place_matches(c.at, place) and (not c.says or item == c.playhead) for c in changed)
    }
    return frozenset(found) | _matching(base, [change.at for change in changed if not change.says])


def _matching(value: Any, places: Sequence[str]) -> frozenset[str]:
    return frozenset(place for place, _ in _members(value) if any(place_matches(at, place) for at in places))


def compare(
    request: Request,
    base: Answer,
    other: Answer,
    *,
    masks: Sequence[Mask] = (),
    differences: Sequence[Difference] = (),
) -> list[Finding]:
    """Return where `other` differs from `base`, beyond what `masks` hide and `differences` declare.

    `differences` are what `other` does on purpose; each applies only where its condition holds.
    """
    replaced = next((d for d in differences if d.statuses is not None and d.statuses[0] == base.status), None)
    if replaced is not None and replaced.statuses is not None:
        if other.status != replaced.statuses[1]:
            return [Finding(at="status", base=f"declared {replaced.statuses[1]}", other=str(other.status))]
        return _detail_findings(replaced, other)
    findings: list[Finding] = []
    if base.status != other.status:
        findings.append(Finding(at="status", base=str(base.status), other=str(other.status)))
    ignored = [name for difference in differences for name in difference.headers]
    findings += _header_findings(base, other, ignored)
    whole = next((d for d in differences if d.whole_body), None)
    if whole is not None:
        return findings + _detail_findings(whole, other)
    findings += _body_findings(base, other, masks_for(request, masks), differences)
    return findings[:LINES_MAX]


def _detail_findings(difference: Difference, other: Answer) -> list[Finding]:
    if difference.detail is None or difference.detail.encode() in other.body:
        return []
    shown = _show(other.body[:VALUE_CHARS_MAX].decode(errors="replace"))
    return [Finding(at="body", base=f"declared to contain {difference.detail!r}", other=shown)]
