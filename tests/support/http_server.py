"""The HTTP server that the fixture playbooks call, and stand-ins for the public services that they name.

Every caller takes a base URL of its own, `server.base("name")`: what the server remembers (failures to come, requests under
way) is per name, so playbooks can run side by side. The public hosts are paths: `/httpbin.org/get`. There is no DNS: a test
puts `server.base(name) + "/httpbin.org"` where the playbook says `https://httpbin.org`.

Routes and answers follow the description that came with the fixtures; lists hold 35 items in pages of 10 unless asked
otherwise.
"""

from __future__ import annotations

import asyncio
import base64
import math
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

ITEMS = 35
POSTS = 100
BODY_BYTES_MAX = 8 << 20
PAYLOAD_KB_MAX = 1024
DELAY_SECONDS_MAX = 10.0
EPOCH = datetime(2024, 1, 1, 12, tzinfo=UTC)
TOTALS = {"assessments": 3, "conditions": 2, "medications": 2, "vital_signs": 4}  # pages per patient at the most


@dataclass(slots=True)
class _Memory:
    """What the server remembers for one base URL."""

    failed: set[str] = field(default_factory=set)
    heavy: int = 0
    started: int = 0
    completed: int = 0
    active: int = 0
    max_active: int = 0
    limited: list[float] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


MEMORY: web.AppKey[defaultdict[str, _Memory]] = web.AppKey("memory", defaultdict)
routes = web.RouteTableDef()


def _memory(request: web.Request) -> _Memory:
    return request.app[MEMORY][request.match_info["name"]]


def _number(request: web.Request, key: str, default: int, least: int = 0) -> int:
    return max(least, int(float(request.query.get(key) or default)))


def _paging(request: web.Request, size: int = 10) -> tuple[int, int, range, dict[str, Any]]:
    page, page_size = _number(request, "page", 1, 1), _number(request, "pageSize", size, 1)
    first = (page - 1) * page_size
    numbers = range(first + 1, min(first + page_size, ITEMS) + 1)
    return page, page_size, numbers, {"hasMore": first + page_size < ITEMS, "page": page, "pageSize": page_size}


def _values(request: web.Request, **more: object) -> dict[str, Any]:
    _, _, numbers, paging = _paging(request)
    return {"data": [{"id": number, "value": f"item_{number}", **more} for number in numbers], "paging": paging}


def _blob(kilobytes: int, seed: int = 0) -> str:
    return chr(ord("A") + seed % 26) * (min(kilobytes, PAYLOAD_KB_MAX) * 1024)


def _day(number: int) -> str:
    return (EPOCH + timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- pages of many kinds ---------------------------------------------------------------------------------------------


@routes.get("/{name}/api/v1/assessments")
async def assessments(request: web.Request) -> web.Response:
    _, _, numbers, paging = _paging(request)
    data = [{"id": number, "name": f"Assessment {number}", "score": 50 + number} for number in numbers]
    return web.json_response({"data": data, "paging": {**paging, "total": ITEMS}})


@routes.get("/{name}/api/v1/users")
async def users(request: web.Request) -> web.Response:
    offset, limit = _number(request, "offset", 0), _number(request, "limit", 10, 1)
    numbers = range(offset + 1, min(offset + limit, ITEMS) + 1)
    found = [{"id": n, "username": f"user{n}", "email": f"user{n}@example.com"} for n in numbers]
    more = offset + limit < ITEMS
    return web.json_response({"users": found, "has_more": more, "offset": offset, "limit": limit, "total": ITEMS})


@routes.get("/{name}/api/v1/events")
async def events(request: web.Request) -> web.Response:
    cursor, limit = request.query.get("cursor"), _number(request, "limit", 10, 1)
    page = int(base64.b64decode(cursor)) if cursor else 1
    first = (page - 1) * limit
    last = min(first + limit, ITEMS)
    found = [
        {"id": n, "type": "user_action", "timestamp": _day(n), "data": {"action": f"event_{n}"}}
        for n in range(first + 1, last + 1)
    ]
    following = base64.b64encode(str(page + 1).encode()).decode() if last < ITEMS else None
    return web.json_response({"events": found, "next_cursor": following, "limit": limit})


@routes.get("/{name}/api/v1/flaky")
async def flaky(request: web.Request) -> web.Response:
    page = request.query.get("page") or "1"
    memory = _memory(request)
    if page in (request.query.get("fail_on") or "").split(",") and page not in memory.failed:
        memory.failed.add(page)
        return web.json_response({"detail": "Simulated failure"}, status=500)
    return web.json_response(_values(request))


@routes.post("/{name}/api/v1/flaky/reset")
async def flaky_reset(request: web.Request) -> web.Response:
    _memory(request).failed.clear()
    return web.json_response({"status": "reset"})


@routes.get("/{name}/api/v1/heavy")
async def heavy(request: web.Request) -> web.Response:
    _memory(request).heavy += 1
    _, _, numbers, paging = _paging(request)
    size = _number(request, "payload_kb", 10)
    data = [
        {
            "id": n,
            "name": f"Heavy Assessment {n}",
            "score": 50 + n,
            "category": "education",
            "metadata": {"created_at": _day(n), "version": f"1.{n}.0", "tags": [f"tag_{i}" for i in range(5)]},
            "description": f"This is a detailed description for assessment {n}. ",
            "payload": _blob(size, n),
        }
        for n in numbers
    ]
    return web.json_response({"data": data, "paging": {**paging, "total": ITEMS}})


@routes.get("/{name}/api/v1/heavy/stats")
async def heavy_stats(request: web.Request) -> web.Response:
    return web.json_response({"requests": _memory(request).heavy})


@routes.get("/{name}/api/v1/errors")
async def errors(request: web.Request) -> web.Response:
    kind, after = request.query.get("error_type"), request.query.get("retry_after") or "5"
    texts = {
        "429": ("Too Many Requests", "Rate limit exceeded"),
        "503": ("Service Unavailable", "Server temporarily unavailable"),
        "500": ("Internal Server Error", "Simulated failure"),
        "404": ("Not Found", "Resource not found"),
        "auth": ("Unauthorized", "Authentication required"),
        "401": ("Unauthorized", "Authentication required"),
        "403": ("Forbidden", "Access denied"),
    }
    if not kind:
        return web.json_response(_values(request))
    title, message = texts.get(kind, ("Error", "Simulated error"))
    status = int(kind) if kind.isdigit() else 401 if kind == "auth" else 500
    headers = {"Retry-After": after} if kind in ("429", "503") else {}
    return web.json_response({"error": title, "message": message}, status=status, headers=headers)


@routes.get("/{name}/api/v1/rate-limited")
async def rate_limited(request: web.Request) -> web.Response:
    memory, limit = _memory(request), _number(request, "requests_per_second", 2, 1)
    now = asyncio.get_running_loop().time()
    memory.limited = [at for at in memory.limited if now - at < 1.0]
    if len(memory.limited) >= limit:
        headers = {"Retry-After": "1"}
        return web.json_response({"error": "Too Many Requests"}, status=429, headers=headers)
    memory.limited.append(now)
    shown = {"requests_in_window": len(memory.limited), "limit": limit}
    return web.json_response({**_values(request, rate_limited=True), "rate_limit": shown})


# --- how many requests overlap ---------------------------------------------------------------------------------------


@routes.post("/{name}/api/v1/concurrency/reset")
async def concurrency_reset(request: web.Request) -> web.Response:
    request.app[MEMORY][request.match_info["name"]] = _Memory()
    return web.json_response({"status": "reset"})


@routes.get("/{name}/api/v1/concurrency/probe")
async def concurrency_probe(request: web.Request) -> web.Response:
    memory = _memory(request)
    label = request.query.get("label") or "probe"
    delay = min(float(request.query.get("delay_seconds") or 0), DELAY_SECONDS_MAX)
    memory.started += 1
    memory.active += 1
    number, at_start = memory.started, memory.active
    memory.max_active = max(memory.max_active, memory.active)
    memory.events.append({"phase": "start", "request_id": number, "label": label})
    await asyncio.sleep(delay)
    memory.active -= 1
    memory.completed += 1
    memory.events.append({"phase": "end", "request_id": number, "label": label})
    return web.json_response(
        {"request_id": number, "label": label, "delay_seconds": delay, "active_at_start": at_start, **_counts(memory)}
    )


def _counts(memory: _Memory) -> dict[str, int]:
    return {
        "started": memory.started,
        "completed": memory.completed,
        "active": memory.active,
        "max_active": memory.max_active,
    }


@routes.get("/{name}/api/v1/concurrency/stats")
async def concurrency_stats(request: web.Request) -> web.Response:
    memory = _memory(request)
    return web.json_response({**_counts(memory), "recent_events": memory.events[-50:]})


# --- patients --------------------------------------------------------------------------------------------------------


def _mds_ids(patient: int, page: int, item: int) -> list[str]:
    return [f"MDS-{patient}-p{page}-{item}-{n:02d}" for n in range(1, 5 + (patient + page + item) % 4)]


def _patient_page(patient: int, kind: str, page: int, size: int) -> dict[str, Any]:
    total = 1 + patient % TOTALS[kind]
    items: list[dict[str, Any]] = []
    for item in range(size if page <= total else 0):
        row: dict[str, Any] = {"id": f"{kind[:4].upper()}-{patient}-p{page}-i{item}", "patientId": str(patient)}
        row |= {"dataType": kind, "value": (patient * 13 + page + item) % 100}
        if kind == "assessments":
            identifiers = _mds_ids(patient, page, item)
            row |= {"mdsAssessmentIds": identifiers, "mdsCount": len(identifiers)}
        items.append(row)
    return {"data": items, "paging": {"hasMore": page < total, "page": page, "pageSize": size, "total": total}}


def _patient(request: web.Request) -> int:
    return _number(request, "patientId", 1, 1)


@routes.get("/{name}/api/v1/patient/demographics")
async def demographics(request: web.Request) -> web.Response:
    patient = _patient(request)
    names = {"firstName": f"First{patient * 70 % 1000}", "lastName": f"Last{patient * 42 % 1000}"}
    more = {"dob": "1990-07-13", "gender": "M" if patient % 2 else "F", "status": "active"}
    return web.json_response({"patientId": str(patient), **names, **more})


@routes.get("/{name}/api/v1/patient/{kind}")
async def patient_kind(request: web.Request) -> web.Response:
    kind = request.match_info["kind"]
    if kind not in TOTALS:
        raise web.HTTPNotFound
    size = min(_number(request, "pageSize", 10, 1), 50)
    return web.json_response(_patient_page(_patient(request), kind, _number(request, "page", 1, 1), size))


@routes.get("/{name}/api/v1/patient-records")
async def patient_records(request: web.Request) -> web.Response:
    patient, page, size = _patient(request), _number(request, "page", 1, 1), _number(request, "pageSize", 10, 1)
    total = 10
    entries = [
        {
            "fullUrl": f"MedicationStatement/{patient}-p{page}-e{n}",
            "resource": {
                "resourceType": "MedicationStatement",
                "id": f"{patient}-p{page}-e{n}",
                "status": "active",
                "subject": {"reference": f"Patient/{patient}"},
                "_payload": _blob(_number(request, "payload_kb", 1), n),
            },
        }
        for n in range(min(size, max(0, total - (page - 1) * size)))
    ]
    links = [{"relation": "self", "url": str(request.url)}]
    if page * size < total:
        links.append({"relation": "next", "url": str(request.url.update_query(page=page + 1))})
    return web.json_response(
        {"resourceType": "Bundle", "type": "searchset", "total": total, "link": links, "entry": entries}
    )


def _mds_detail(identifier: str) -> dict[str, Any]:
    sections = [
        {
            "sectionId": f"S{section}",
            "questions": [
                {"key": f"B{section}0{question}", "responses": [{"responseValue": str((section + question) % 5)}]}
                for question in (1, 2, 3)
            ],
        }
        for section in (1, 2, 3)
    ]
    return {"assessmentId": identifier, "status": "completed", "sections": sections}


@routes.get("/{name}/api/v1/mds/assessment_ids")
async def mds_ids(request: web.Request) -> web.Response:
    patient = _patient(request)
    found = [f"MDS-{patient}-{n:03d}" for n in range(1, 6)]
    return web.json_response({"patientId": str(patient), "assessmentIds": found, "count": len(found)})


@routes.get("/{name}/api/v1/mds/assessment/{assessment_id}")
async def mds_assessment(request: web.Request) -> web.Response:
    return web.json_response(_mds_detail(request.match_info["assessment_id"]))


@routes.get("/{name}/api/v1/pft/batch/{kind}")
async def pft_batch(request: web.Request) -> web.Response:
    kind, size = request.match_info["kind"], _number(request, "pageSize", 10, 1)
    patients = [int(text) for text in (request.query.get("patientIds") or "").split(",") if text]
    per_facility = max(_number(request, "patientsPerFacility", 1000, 1), 1000)  # patients are numbered by thousands
    rows: list[dict[str, Any]] = []
    for patient in patients:
        facility = math.ceil(patient / per_facility)
        if kind == "demographics":
            payload: dict[str, Any] = {"patientId": str(patient), "status": "active"}
            pages = [(1, payload, True)]
        elif kind == "mds":
            rows += [
                {
                    "patient_id": patient,
                    "facility_mapping_id": facility,
                    "assessment_id": name,
                    "payload": _mds_detail(name),
                }
                for name in (f"MDS-{patient}-{n:03d}" for n in range(1, 4))
            ]
            continue
        else:
            total = _patient_page(patient, kind, 1, size)["paging"]["total"]
            pages = [(n, _patient_page(patient, kind, n, size), n == total) for n in range(1, total + 1)]
        rows += [
            {
                "patient_id": patient,
                "facility_mapping_id": facility,
                "page_number": n,
                "payload": payload,
                "is_last_page": last,
            }
            for n, payload, last in pages
        ]
    return web.json_response({"dataType": kind, "patientCount": len(patients), "rowCount": len(rows), "rows": rows})


@routes.get("/{name}/api/v1/pft/mds/details")
async def pft_mds(request: web.Request) -> web.Response:
    found = [text for text in (request.query.get("assessmentId") or "").split(",") if text]
    rows = [{"assessment_id": identifier, "payload": _mds_detail(identifier)} for identifier in found]
    return web.json_response({"rowCount": len(rows), "rows": rows})


@routes.get("/{name}/api/v1/reference-chain/items")
async def chain_items(request: web.Request) -> web.Response:
    page, size = _number(request, "page", 1, 1), _number(request, "pageSize", 25, 1)
    total, kilobytes = _number(request, "total", 382), _number(request, "payload_kb", 1)
    first = (page - 1) * size
    data = [
        {
            "record_id": n,
            "record_ref": f"record-{n:06d}",
            "prev_ref": f"record-{n - 1:06d}" if n > 1 else None,
            "batch": page,
            "payload": _blob(kilobytes, n),
        }
        for n in range(first + 1, min(first + size, total) + 1)
    ]
    more = first + size < total
    paging = {"hasMore": more, "page": page, "pageSize": size, "total": total, "nextPage": page + 1 if more else None}
    return web.json_response(
        {"data": data, "paging": paging, "refs": {"mode": "linked", "page_ref": f"page-{page:06d}"}}
    )


@routes.get("/{name}/api/v1/reference-chain/detail/{record_id}")
async def chain_detail(request: web.Request) -> web.Response:
    number, kilobytes = int(request.match_info["record_id"]), _number(request, "payload_kb", 2)
    summary = {"classification": f"class-{number % 7}", "score": 40 + number, "payload_kb": kilobytes}
    return web.json_response({"record_id": number, "status": "ok", "summary": summary, "payload": _blob(kilobytes)})


# --- stand-ins for public services -----------------------------------------------------------------------------------


@routes.get("/{name}/health")
async def health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


@routes.route("*", "/{name}/httpbin.org/{way:get|post|put|anything}{rest:.*}")
async def httpbin(request: web.Request) -> web.Response:
    raw = await request.read()
    try:
        sent = await request.json() if raw else None
    except ValueError:
        sent = None
    return web.json_response(
        {
            "method": request.method,
            "args": dict(request.query),
            "headers": {key.title(): value for key, value in request.headers.items()},
            "data": raw.decode(errors="replace"),
            "json": sent,
            "origin": "127.0.0.1",
            "url": str(request.url),
        }
    )


@routes.route("*", "/{name}/httpbin.org/status/{code}")
async def httpbin_status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["code"]))


def _post(number: int) -> dict[str, Any]:
    return {"userId": (number - 1) // 10 + 1, "id": number, "title": f"title {number}", "body": f"it's post {number}"}


@routes.get("/{name}/jsonplaceholder.typicode.com/posts")
async def posts(_: web.Request) -> web.Response:
    return web.json_response([_post(number) for number in range(1, POSTS + 1)])


@routes.get("/{name}/jsonplaceholder.typicode.com/posts/{number}")
async def one_post(request: web.Request) -> web.Response:
    return web.json_response(_post(int(request.match_info["number"])))


@routes.get("/{name}/api.open-meteo.com/v1/forecast")
async def forecast(request: web.Request) -> web.Response:
    latitude = float(request.query["latitude"])
    weather = {"temperature": round(60 - latitude, 1), "windspeed": 10.5, "winddirection": 200, "weathercode": 3}
    where = {"latitude": latitude, "longitude": float(request.query["longitude"])}
    return web.json_response({**where, "current_weather": weather})


@routes.get("/{name}/api.github.com/repos/{owner}/{repository}")
async def repository(request: web.Request) -> web.Response:
    owner, name = request.match_info["owner"], request.match_info["repository"]
    counts = {"stargazers_count": 175_000, "forks_count": 34_000, "open_issues_count": 9000}
    times = {"created_at": "2015-09-03T20:23:38Z", "updated_at": "2026-11-01T10:00:00Z"}
    return web.json_response(
        {"name": name, "full_name": f"{owner}/{name}", "language": "TypeScript", **counts, **times}
    )


@routes.get("/{name}/api.example.com/data")
async def example_data(_: web.Request) -> web.Response:
    return web.json_response({"items": [{"id": 1}, {"id": 2}, {"id": 3}], "total": 3})


@routes.post("/{name}/gateway/{rest:.*}")
async def gateway(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "received": await request.json() if request.can_read_body else None})


class FixtureServer:
    """The running server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def base(self, name: str) -> str:
        """Return a base URL whose memory nobody else shares."""
        return f"http://127.0.0.1:{self.port}/{name}"


@asynccontextmanager
async def fixture_server() -> AsyncIterator[FixtureServer]:
    """Run the server on a free port of the loopback until the block is left."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app[MEMORY] = defaultdict(_Memory)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield FixtureServer(runner.addresses[0][1])
    finally:
        await runner.cleanup()
