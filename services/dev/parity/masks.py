"""What cannot be equal in two answers, each with its reason. What differs on purpose stands in `differences.yaml` instead."""

from __future__ import annotations

from services.dev.parity.rules import Mask, MaskKind

_MACHINE = "figures of the machine and the process"
_MEMORY = "counters of one server process, in its memory"

MASKS: tuple[Mask, ...] = (
    Mask(route="GET /metrics", at="*", kind=MaskKind.ANY, reason=_MACHINE),
    Mask(route="GET /openapi.json", at="*", kind=MaskKind.ANY, reason="each server documents itself"),
    Mask(route="GET /api/status", at="/*", kind=MaskKind.TYPE, reason=_MACHINE),
    Mask(route="GET /api/threads", at="*", kind=MaskKind.TYPE, reason=_MACHINE),
    Mask(
        route="GET /api/profiler/status",
        at="/memray_available",
        kind=MaskKind.TYPE,
        reason="whether the profiler is installed on the machine",
    ),
    Mask(route="GET /api/pool/status", at="/*", kind=MaskKind.TYPE, reason=_MACHINE),
    Mask(route="GET /api/result/stats", at="/*", kind=MaskKind.TYPE, reason=_MEMORY),
    Mask(route="GET /api/temp/stats", at="/*", kind=MaskKind.TYPE, reason=_MEMORY),
    Mask(
        route="GET /api/executions*",
        at="*/duration_*",
        kind=MaskKind.TYPE,
        reason="of what still runs: until the time of the answer",
        while_running=True,
    ),
    Mask(
        route="GET /api/worker/pools",
        at="/items/*/status",
        kind=MaskKind.TYPE,
        reason="whether the last heartbeat is recent depends on the time of the answer",
    ),
    Mask(route="* *", at="*/generated_at", kind=MaskKind.TIME, reason="time of the answer"),
    Mask(
        route="GET /api/executions/{execution_id}/status",
        at="/completed_steps",
        kind=MaskKind.ORDER,
        reason="the original answers a set",
    ),
    Mask(
        route="GET /api/keychain/{catalog_id}/{keychain_name}",
        at="/ttl_seconds",
        kind=MaskKind.TYPE,
        reason="seconds left until the entry expires",
    ),
    Mask(
        route="GET /api/keychain/{catalog_id}/{keychain_name}",
        at="/accessed_at",
        kind=MaskKind.TIME,
        reason="time of the answer",
    ),
)

# Between live servers the machines differ as well; a database under both may move between two requests.
LIVE_MASKS: tuple[Mask, ...] = (
    *MASKS,
    Mask(route="GET /api/worker/pools", at="*/heartbeat", kind=MaskKind.TIME, reason="workers live on"),
    Mask(route="GET /api/worker/pools", at="*/updated_at", kind=MaskKind.TIME, reason="workers live on"),
)

_TIMES = ("_at", "_time", "/heartbeat", "/timestamp")
WRITE_MASKS: tuple[Mask, ...] = (
    *MASKS,
    *(Mask(route="* *", at=f"*{end}", kind=MaskKind.TIME, reason="time of the write") for end in _TIMES),
    Mask(route="* *", at="*/duration_*", kind=MaskKind.TYPE, reason="time of the writes"),
    *(
        Mask(route="GET /api/replay/state", at=at, kind=MaskKind.TYPE, reason="of the ids and times that were minted")
        for at in ("/checksum", "/projection_checksums/*")
    ),
    Mask(route="* *", at="", kind=MaskKind.ID, reason="each server mints its own ids"),
    Mask(route="POST /api/events/batch", at="/queue_depth", kind=MaskKind.TYPE, reason="load of the moment"),
)
