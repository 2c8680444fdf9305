"""The state of an execution as the original folds it from the log, with its checksums. Pure.

It folds events of every writer: ours, the original's, stages and frames of cursor loops. Decisions use the engine's own fold
(`shared.engine.fold`); this one is what `GET /api/replay/state` shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

UPCASTERS_DIGEST = hashlib.sha256(b"[]").hexdigest()  # of the list of event upcasters: there are none

_STATUS_BY_TYPE = {
    **dict.fromkeys(("playbook.completed", "workflow.completed", "execution.completed"), "COMPLETED"),
    **dict.fromkeys(("playbook.failed", "workflow.failed", "execution.failed", "command.failed"), "FAILED"),
    **dict.fromkeys(("playbook.initialized", "execution.started", "stage.opened", "frame.dispatched"), "RUNNING"),
    "execution.cancelled": "CANCELLED",
}
_ENDED = frozenset({"COMPLETED", "CANCELLED"})  # a failure may be handled; these two are final
_COMMAND_MARKS = {
    "command.issued": ("issued_event_id", "PENDING"),
    "command.claimed": ("claimed_event_id", "CLAIMED"),
    "command.started": ("started_event_id", "RUNNING"),
    "command.completed": ("terminal_event_id", "COMPLETED"),
    "command.failed": ("terminal_event_id", "FAILED"),
    "command.cancelled": ("terminal_event_id", "CANCELLED"),
}
_PLACES = ("locality", "source_locality", "placement", "fanout_reduce")
_SUMMARY_KEYS = ("sha256", "media_type", "row_count", "ref", "schema_digest")
_STAGE_COUNTS = ("frame_count", "row_count", "events_emitted", "failed_count")


def canonical_sha256(value: object) -> str:
    """Return the hash of `value` as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def fold(
    events: Iterable[Mapping[str, Any]], *, tenant_id: str, organization_id: str, execution_id: int, projection: str
) -> dict[str, Any]:
    """Return the document of `GET /api/replay/state` after `events`, which are in the order of their ids."""
    state: dict[str, Any] = {
        "tenant_id": tenant_id,
        "organization_id": organization_id,
        "execution_id": execution_id,
        "projection": projection,
        "upcaster_registry_digest": UPCASTERS_DIGEST,
        "event_count": 0,
        "last_event_id": None,
        "last_event_type": None,
        "execution": {"status": "UNKNOWN", "last_node_name": None, "payload_refs": []},
        "stages": {},
        "frames": {},
        "commands": {},
        "business_objects": {},
        "loops": {},
    }
    for event in events:
        _apply(state, event)
    checksums = _surface_checksums(state)
    return {
        **state,
        "checksum_algorithm": "sha256",
        "checksum": canonical_sha256(state),
        "projection_checksums": checksums,
    }


def _apply(state: dict[str, Any], event: Mapping[str, Any]) -> None:
    kind, meta = str(event["event_type"] or ""), event["meta"] or {}
    state["event_count"] += 1
    state["last_event_id"], state["last_event_type"] = event["event_id"], kind
    execution = state["execution"]
    execution["last_node_name"] = event["node_name"]
    status = _STATUS_BY_TYPE.get(kind)
    if status is not None and execution["status"] not in _ENDED:
        execution["status"] = status
    reference = _payload_ref(event)
    if reference is not None:
        execution["payload_refs"].append({"event_id": event["event_id"], "reference": reference})
    _apply_stage(state, event, kind, meta)
    _apply_frame(state, event, kind, meta, reference)
    _apply_command(state, event, kind, meta)
    _apply_business_object(state, event, kind, meta, reference)
    _apply_loop(state, event, kind, meta)


def _payload_ref(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    result = event["result"]
    found = event["payload_ref"] or (result.get("reference") if isinstance(result, Mapping) else None)
    return found if isinstance(found, Mapping) and found else None


def payload_summary(reference: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the checksums know of a reference."""
    found = reference or {}
    meta = found.get("meta")
    inner = meta if isinstance(meta, Mapping) else {}
    return {key: found.get(key, inner.get(key)) for key in _SUMMARY_KEYS}


def _id(event: Mapping[str, Any], meta: Mapping[str, Any], name: str) -> str | None:
    value = event[name] if event[name] is not None else meta.get(name)
    return None if value is None or value == "" else str(value)


def _loop_id(event: Mapping[str, Any], meta: Mapping[str, Any]) -> str | None:
    result = event["result"]
    context = result.get("context") if isinstance(result, Mapping) else None
    inner = context if isinstance(context, Mapping) else {}
    value = meta.get("loop_event_id") or meta.get("__loop_epoch_id") or inner.get("loop_event_id")
    return str(value) if value else None


def _count(meta: Mapping[str, Any], entry: Mapping[str, Any], name: str) -> int:
    value = meta.get(name)
    return value if isinstance(value, int) and value else int(entry[name])


def _apply_stage(state: dict[str, Any], event: Mapping[str, Any], kind: str, meta: Mapping[str, Any]) -> None:
    stage_id = _id(event, meta, "stage_id")
    if stage_id is None:
        return
    stage = state["stages"].setdefault(
        stage_id,
        {
            "stage_id": stage_id,
            "status": "UNKNOWN",
            "kind": meta.get("kind"),
            "step_name": event["node_name"] or meta.get("step_name"),
            "parent_stage_id": meta.get("parent_stage_id"),
            "loop_event_id": None,
            "opened_event_id": None,
            "closed_event_id": None,
            **dict.fromkeys(_STAGE_COUNTS, 0),
            "last_event_id": None,
        },
    )
    stage["last_event_id"] = event["event_id"]
    stage["loop_event_id"] = _loop_id(event, meta) or stage["loop_event_id"]
    if kind == "stage.opened":
        stage |= {"status": "OPEN", "opened_event_id": event["event_id"]}
    elif kind == "stage.closed":
        stage |= {"status": event["status"] or "CLOSED", "closed_event_id": event["event_id"]}
        stage |= {name: _count(meta, stage, name) for name in _STAGE_COUNTS}
    elif event["status"]:
        stage["status"] = str(event["status"])


def _apply_frame(
    state: dict[str, Any],
    event: Mapping[str, Any],
    kind: str,
    meta: Mapping[str, Any],
    reference: Mapping[str, Any] | None,
) -> None:
    frame_id = _id(event, meta, "frame_id")
    if frame_id is None:
        return
    frame = state["frames"].setdefault(
        frame_id,
        {
            "frame_id": frame_id,
            "stage_id": None,
            "parent_frame_id": None,
            "command_id": None,
            "claimed_event_id": None,
            "terminal_event_id": None,
            "status": "UNKNOWN",
            "row_count": 0,
            "attempts": 0,
            "last_event_id": None,
            "output_ref": None,
            "output_ref_summary": payload_summary(None),
            "cursor": {},
            "events_emitted": 0,
        },
    )
    frame["last_event_id"] = event["event_id"]
    for name in ("stage_id", "command_id"):
        frame[name] = _id(event, meta, name) or frame[name]
    if meta.get("parent_frame_id") is not None:
        frame["parent_frame_id"] = str(meta["parent_frame_id"])
    if kind == "frame.dispatched":
        attempt = meta.get("attempt")
        attempts = max(frame["attempts"], attempt if isinstance(attempt, int) else 1)
        frame |= {"status": "CLAIMED", "claimed_event_id": event["event_id"], "attempts": attempts}
    elif kind == "frame.started":
        frame["status"] = "RUNNING"
    elif kind in ("frame.committed", "frame.failed"):
        frame |= {
            "status": event["status"] or ("COMPLETED" if kind == "frame.committed" else "FAILED"),
            "output_ref": reference,
            "output_ref_summary": payload_summary(reference),
            "cursor": meta.get("cursor") or frame["cursor"],
            "events_emitted": _count(meta, frame, "events_emitted"),
            "terminal_event_id": event["event_id"],
        }
        if kind == "frame.committed":
            frame["row_count"] = _count(meta, frame, "row_count")
    elif event["status"] or kind == "frame.abandoned":
        frame["status"] = event["status"] or "ABANDONED"


def _apply_command(state: dict[str, Any], event: Mapping[str, Any], kind: str, meta: Mapping[str, Any]) -> None:
    command_id = _id(event, meta, "command_id")
    if command_id is None:
        return
    command = state["commands"].setdefault(
        command_id,
        {
            "command_id": command_id,
            **dict.fromkeys(("stage_id", "frame_id", "parent_command_id", "worker_id", "worker_locator")),
            **{name: {} for name in _PLACES},
            "status": "UNKNOWN",
            **dict.fromkeys(("issued_event_id", "claimed_event_id", "started_event_id", "terminal_event_id")),
            "last_event_id": None,
        },
    )
    command["last_event_id"] = event["event_id"]
    for name in ("stage_id", "frame_id"):
        command[name] = _id(event, meta, name) or command[name]
    worker = event["worker_id"] or meta.get("worker_id")
    texts = {
        "parent_command_id": meta.get("parent_command_id"),
        "worker_id": worker,
        "worker_locator": meta.get("worker_locator"),
    }
    command |= {name: str(value) for name, value in texts.items() if value is not None}
    command |= {name: dict(meta[name]) for name in _PLACES if isinstance(meta.get(name), Mapping)}
    mark = _COMMAND_MARKS.get(kind)
    if mark is not None:
        command |= {mark[0]: event["event_id"], "status": event["status"] or mark[1]}
    elif kind.startswith("command.") and event["status"]:
        command["status"] = str(event["status"])


def _identity(event: Mapping[str, Any], meta: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return type and id of the business object that an event is about."""
    own = meta.get("business_object")
    business: Mapping[str, Any] = own if isinstance(own, Mapping) else {}
    kind = business.get("object_type") or business.get("type") or meta.get("business_object_type")
    key = business.get("object_id") or business.get("id") or meta.get("business_object_id")
    kind, key = kind or meta.get("object_type"), key or meta.get("object_id")
    if event["aggregate_type"] == "business_object" and event["aggregate_id"]:
        parts = [part for part in str(event["aggregate_id"]).split("/") if part]
        parts = parts[1:] if parts[:1] == ["business_object"] else parts
        if len(parts) > 1:
            kind, key = kind or parts[0], key or "/".join(parts[1:])
        else:
            kind, key = kind or "business_object", key or str(event["aggregate_id"])
    return None if kind is None or key is None else (str(kind), str(key))


def _apply_business_object(
    state: dict[str, Any],
    event: Mapping[str, Any],
    kind: str,
    meta: Mapping[str, Any],
    reference: Mapping[str, Any] | None,
) -> None:
    identity = _identity(event, meta)
    if identity is None:
        return
    key = "/".join(identity)
    thing = state["business_objects"].setdefault(
        key,
        {
            "object_key": key,
            "object_type": identity[0],
            "object_id": identity[1],
            "status": "UNKNOWN",
            "version": 0,
            "event_count": 0,
            "first_event_id": event["event_id"],
            **dict.fromkeys(("last_event_id", "deleted_event_id", "last_event_type", "last_payload_ref")),
            "payload_refs": [],
            "attributes": {},
        },
    )
    own = meta.get("business_object")
    business: Mapping[str, Any] = own if isinstance(own, Mapping) else {}
    count = thing["event_count"] + 1
    version = business.get("version") or meta.get("business_object_version")
    thing |= {"last_event_id": event["event_id"], "last_event_type": kind, "event_count": count}
    thing["version"] = version if isinstance(version, int) else count
    status = event["status"] or _status_of_name(kind.lower())
    if status:
        thing["status"] = str(status)
        if status == "DELETED":
            thing["deleted_event_id"] = event["event_id"]
    if isinstance(business.get("state"), Mapping):
        thing["attributes"] = dict(business["state"])
    patch = business.get("patch") or business.get("attributes")
    if isinstance(patch, Mapping):
        thing["attributes"] = {**thing["attributes"], **patch}
    if reference is not None:
        entry = {"event_id": event["event_id"], "reference": reference, "summary": payload_summary(reference)}
        thing["payload_refs"].append(entry)
        thing["last_payload_ref"] = entry


def _status_of_name(kind: str) -> str | None:
    if kind.endswith((".deleted", ".removed")):
        return "DELETED"
    return "ACTIVE" if kind.endswith((".created", ".updated", ".upserted")) else None


def _apply_loop(state: dict[str, Any], event: Mapping[str, Any], kind: str, meta: Mapping[str, Any]) -> None:
    loop_id = _loop_id(event, meta)
    if loop_id is None:
        return
    loop = state["loops"].setdefault(
        loop_id,
        {
            "loop_id": loop_id,
            "step_name": event["node_name"],
            "total": meta.get("collection_size") or meta.get("total"),
            "done": 0,
            "failed": 0,
            "completed": False,
            "last_event_id": None,
        },
    )
    loop["last_event_id"] = event["event_id"]
    if kind in ("command.completed", "loop.shard.done"):
        loop["done"] += 1
    elif kind in ("command.failed", "loop.shard.failed"):
        loop["failed"] += 1
    elif kind in ("loop.done", "loop.fanin.completed"):
        loop["completed"] = True


def _surface_checksums(state: Mapping[str, Any]) -> dict[str, str]:
    execution = state["execution"]
    refs = execution["payload_refs"]
    row = {
        **{key: state[key] for key in ("execution_id", "tenant_id", "organization_id", "projection", "event_count")},
        **{key: state[key] for key in ("last_event_id", "last_event_type", "upcaster_registry_digest")},
        "status": execution["status"],
        "last_node_name": execution["last_node_name"],
        "payload_ref_count": len(refs),
        "last_payload_ref_summary": payload_summary(refs[-1]["reference"] if refs else None),
    }
    hidden = {"frames": {"last_event_id", "output_ref", "attempts"}, "commands": {"last_event_id"}}
    return {
        "execution": canonical_sha256({"executions": [row]}),
        **{name: _surface(state[name], name, hidden.get(name, set())) for name in ("stages", "frames", "commands")},
        "business_objects": canonical_sha256({"business_objects": _objects(state["business_objects"])}),
        "loops": _surface(state["loops"], "loops", set()),
    }


def _surface(entries: Mapping[str, Mapping[str, Any]], name: str, hidden: set[str]) -> str:
    keys = sorted(entries, key=lambda key: (int(key), "") if key.isdigit() else (0, key))
    rows = [{field: value for field, value in entries[key].items() if field not in hidden} for key in keys]
    return canonical_sha256({name: rows})


def _objects(entries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for key in sorted(entries):
        row = dict(entries[key])
        last = row.pop("last_payload_ref")
        row["payload_ref_count"] = len(row.pop("payload_refs"))
        row["last_payload_ref_summary"] = payload_summary(last["reference"] if last else None)
        rows.append(row)
    return rows
