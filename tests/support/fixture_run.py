"""Runs fixture playbooks on a stack and tells what came out: the end, how often each step ran, and what each returned."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import yaml

from tests.support.fixtures import ENGINE_RUNS, GOLDEN, ROOT, RUNS
from tests.support.http_server import FixtureServer
from tests.support.stack import Stack

HERE = ROOT / "tests" / "fixtures"
SEQUENCE_SUFFIX = ":task_sequence"
AT_ONCE_MAX = 10  # executions that run at the same time
END_SECONDS_MAX = 150.0
# Names under which fixtures know one local database; each gets the database of the fixture that uses it.
POSTGRES_CREDENTIALS = ("pg_k8s", "pg_local", "pg_auth", "pg_test", "pg_trade", "pg_tutorial", "test_postgres")
PLATFORM_CREDENTIALS = ("pg_noetl_k8s", "noetl_connection")  # the platform's own database, which one fixture reads
NATS_CREDENTIAL = "nats_credential"
ENDS = {"playbook.completed": "completed", "playbook.failed": "failed", "execution.cancelled": "cancelled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A playbook to run, and what it needs."""

    name: str
    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    replace: Mapping[str, str] = field(default_factory=dict)
    database: str = "shared"
    children: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    cancel_at: str | None = None  # step during which it is cancelled


@dataclass(slots=True)
class Outcome:
    """What came out of one execution."""

    status: str
    error: str
    steps: Counter[str]
    outputs: dict[str, list[Any]]  # step: what each of its commands returned, in the order of the log
    ends: list[str]
    document: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def failed_to_run(cls, error: Exception) -> Outcome:
        """Return the outcome of a case that could not even be registered or started."""
        return cls(status="not run", error=str(error), steps=Counter(), outputs={}, ends=[], document={})


def public_cases() -> dict[str, tuple[Case, Mapping[str, Any]]]:
    """Return the public fixtures with their rows of `tests/fixtures/table.yaml`."""
    table = yaml.safe_load((HERE / "table.yaml").read_text())
    return {
        name: (
            Case(
                name=name,
                text=((HERE if name.startswith("own/") else GOLDEN / "playbooks") / f"{name}.yaml").read_text(),
                payload=row.get("payload") or {},
                replace=row.get("replace") or {},
                database=row.get("database", "shared"),
                children=tuple(
                    (HERE / "children" / f"{child}.yaml").read_text() for child in row.get("children") or ()
                ),
                after=tuple(row.get("after") or ()),
            ),
            row,
        )
        for name, row in table.items()
    }


def _recordings() -> Iterator[tuple[str, str, dict[str, Any], tuple[str, ...]]]:
    """Yield name, playbook, log and the playbooks that it calls, of every recorded run."""
    for file in RUNS:
        children = tuple(child.read_text() for child in sorted(file.parent.glob("dep_*.yaml")))
        yield file.parent.name, file.read_text(), json.loads((file.parent / "log.json").read_text()), children
    scenarios = {file.stem: json.loads(file.read_text()) for file in ENGINE_RUNS}
    for name, scenario in scenarios.items():
        called = [other["playbook"] for child, other in scenarios.items() if child.startswith(f"{name}_child")]
        yield f"engine_{name}", scenario["playbook"], scenario, tuple(called[:1])


def _recorded_end(events: list[dict[str, Any]]) -> str | None:
    ends = [event["event_type"] for event in events if event["event_type"] in ENDS]
    return ENDS[ends[0]] if ends else None


def recorded_cases() -> dict[str, tuple[Case, Mapping[str, Any]]]:
    """Return the recorded runs of the original with what is expected of each: its recording, and the deviations."""
    deviations = yaml.safe_load((GOLDEN / "deviations.yaml").read_text())
    found: dict[str, tuple[Case, Mapping[str, Any]]] = {}
    for name, text, log, children in _recordings():
        known = deviations.get(name) or {}
        case = Case(
            name=f"runs/{name}",
            text=text,
            payload=known.get("payload") or {},
            database=known.get("database", "runs"),
            children=children,
            after=tuple(f"runs/{other}" for other in known.get("after") or ()),
            cancel_at=known.get("cancel_at"),
        )
        steps = Counter(step_of(item["node_name"]) for item in log["events"] if item["event_type"] == "command.issued")
        wanted = {step: count for step, count in {**steps, **(known.get("steps") or {})}.items() if count}
        expected = {
            "end": known.get("end") or log.get("expect") or _recorded_end(log["events"]),
            "steps": wanted,
            "outputs": {
                step: outputs
                for step, outputs in recorded_outputs(log["events"]).items()
                if step in wanted and step not in (known.get("outputs_differ") or ())
            },
            "results": known.get("results") or {},
        }
        found[case.name] = (case, expected)
    return found


# Members of outputs that are never the same twice, that a test server decides, or that the original adds to its log.
VOLATILE = frozenset(
    (
        *("command_id", "elapsed", "headers", "url", "metrics", "id", "execution_id", "created_at", "context"),
        *(
            "duration",
            "duration_ms",
            "loop_event_id",
            "duration_s",
            "traceback",
            "error",
            "rows_count",
            "worker_slot_id",
        ),
    )
)


def stable(output: Any) -> Any:
    """Return of an output the small values that the original keeps in its log and that are the same every time."""
    if not isinstance(output, Mapping):
        return {}
    return {
        key: value
        for key, value in output.items()
        if key not in VOLATILE and not isinstance(value, dict | list) and (key, value) != ("status", "COMPLETED")
    }


def recorded_outputs(events: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return what each step returned in a recording, in the order of the log."""
    found: dict[str, list[Any]] = {}
    for event in events:
        if event["event_type"] in ("call.done", "call.error"):
            output = event["output"] if "output" in event else (event.get("result") or {}).get("context")
            found.setdefault(step_of(event["node_name"]), []).append(stable(output))
    return found


def output_differences(expected: Mapping[str, list[Any]], outcome: Outcome) -> list[str]:
    """Return where steps returned something else than recorded; the runs of one step in any order."""
    texts: list[str] = []
    for step, outputs in expected.items():
        found = outcome.outputs.get(step, [])
        missing = [wanted for wanted in outputs if not any(not differences(wanted, item) for item in found)]
        texts += [f"{step}: no run returned {wanted!r}; they returned {found!r}" for wanted in missing if wanted]
    return texts


class FixtureStack:
    """A stack with the databases, credentials and servers that fixtures name."""

    def __init__(self, stack: Stack, web: FixtureServer) -> None:
        self.stack = stack
        self.web = web
        self._databases: set[str] = set()
        self._dsn = stack.ready["postgres_dsn"]
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)
        self._registering = asyncio.Lock()
        self._ended: dict[str, asyncio.Event] = {}

    async def prepare(self, databases: set[str]) -> None:
        """Create the databases and credentials."""
        for name in sorted(databases):
            await self._create_database(f"fixtures_{name}")
            for credential in POSTGRES_CREDENTIALS:
                await self._credential(f"{credential}__{name}", "postgres", self._postgres(f"fixtures_{name}"))
        own = urlsplit(self._dsn).path.lstrip("/")
        for credential in PLATFORM_CREDENTIALS:
            await self._credential(credential, "postgres", self._postgres(own))
        await self._credential(NATS_CREDENTIAL, "nats", {"nats_url": self.stack.ready["nats_url"]})

    async def _create_database(self, name: str) -> None:
        connection = await asyncpg.connect(self._dsn)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        connection = await asyncpg.connect(**self._connect(name))
        try:
            await connection.execute((HERE / "seed.sql").read_text())
        finally:
            await connection.close()

    def _connect(self, database: str) -> dict[str, Any]:
        parts = urlsplit(self._dsn)
        found = {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password}
        return {**found, "database": database}

    def _postgres(self, database: str) -> dict[str, Any]:
        return {f"db_{'name' if key == 'database' else key}": value for key, value in self._connect(database).items()}

    async def _credential(self, name: str, kind: str, data: Mapping[str, Any]) -> None:
        body = {"name": name, "type": kind, "data": data}
        status, answer = await self.stack.request("POST", "/api/credentials", body)
        assert status in (200, 201), answer

    # --- one playbook ------------------------------------------------------------------------------------------------

    async def run(self, case: Case) -> Outcome:
        """Register a case with the playbooks that it calls, run it to its end and return what came out."""
        ended = self._ended.setdefault(case.name, asyncio.Event())
        try:
            for name in case.after:
                if name in self._ended:
                    await self._ended[name].wait()
            async with self._slots:
                return await self._run(case)
        finally:
            ended.set()

    def expect(self, cases: list[Case]) -> None:
        """Say which cases will run: `after` waits for these."""
        self._ended = {case.name: asyncio.Event() for case in cases}

    async def _run(self, case: Case) -> Outcome:
        for child in case.children:
            await self.stack.register(self.text(child, case))
        catalog_id = await self.stack.register(self.text(case.text, case))
        execution_id = await self.stack.execute(catalog_id, self._filled(case.payload, case))
        if case.cancel_at is not None:
            await self._cancel(execution_id, case.cancel_at)
        document = await self._until_ended(execution_id)
        _, detail = await self.stack.request("GET", f"/api/executions/{execution_id}")
        events = await self.stack.events(execution_id)
        return _outcome(document, detail, events)

    async def _until_ended(self, execution_id: str) -> dict[str, Any]:
        path, document = f"/api/executions/{execution_id}/status", {}
        try:
            async with asyncio.timeout(END_SECONDS_MAX):
                while True:
                    _, document = await self.stack.request("GET", path)
                    if document.get("status") in ("COMPLETED", "FAILED", "CANCELLED"):
                        return document
                    await asyncio.sleep(0.2)
        except TimeoutError:
            return document

    async def _cancel(self, execution_id: str, step: str) -> None:
        started = (
            "SELECT 1 FROM noetl.event WHERE execution_id = $1 AND event_type = 'command.started' AND node_name = $2"
        )
        await self.stack.until_rows(started, int(execution_id), step, count=1)
        status, answer = await self.stack.request("POST", f"/api/executions/{execution_id}/cancel", {"reason": "test"})
        assert status == 200, answer

    def text(self, text: str, case: Case) -> str:
        """Return a playbook as it is registered: there is no DNS, so hosts and the names of credentials are put in."""
        for credential in POSTGRES_CREDENTIALS:
            for before, after in (("'", "'"), ('"', '"'), (" ", "\n"), (" ", ","), (" ", "}")):
                text = text.replace(f"{before}{credential}{after}", f"{before}{credential}__{case.database}{after}")
        text = text.replace("http://127.0.0.1:55555", self.web.base(_slug(case.name)))
        text = text.replace("http://127.0.0.1:55556/posts", self._web(case) + "/jsonplaceholder.typicode.com/posts")
        text = text.replace("http://127.0.0.1:55556", self._web(case) + "/httpbin.org")
        text = text.replace("http://127.0.0.1:58082", self.stack.url)
        for old, new in case.replace.items():
            text = text.replace(old, str(self._filled(new, case)))
        return text

    def _web(self, case: Case) -> str:
        return self.web.base(_slug(case.name))

    def _filled(self, value: Any, case: Case) -> Any:
        if isinstance(value, str):
            words = {"$web": self._web(case), "$api": self.stack.url, "$here": str(HERE)}
            words |= {f"${key}": str(item) for key, item in self._postgres(f"fixtures_{case.database}").items()}
            for word, meaning in words.items():
                value = value.replace(word, meaning)
            return value
        if isinstance(value, Mapping):
            return {key: self._filled(item, case) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item, case) for item in value]
        return value


def _slug(name: str) -> str:
    return name.replace("/", "-")


def step_of(node: str) -> str:
    """Return the step of a command's node: the original runs the tasks of `x` as `x:task_sequence`."""
    return node.removesuffix(SEQUENCE_SUFFIX)


def _outcome(status: Mapping[str, Any], detail: Mapping[str, Any], events: list[dict[str, Any]]) -> Outcome:
    steps = Counter(step_of(event["node_name"]) for event in events if event["event_type"] == "command.issued")
    outputs: dict[str, list[Any]] = {}
    for event in events:
        if event["event_type"] in ("call.done", "call.error"):
            outputs.setdefault(step_of(event["node_name"]), []).append(_output(event))
    ends = [event["event_type"] for event in events if event["event_type"] in ENDS]
    error = str(detail.get("error") or status.get("error") or "")
    return Outcome(
        status=str(status.get("status", "")).lower() or "running",
        error=error,
        steps=steps,
        outputs=outputs,
        ends=ends,
        document=dict(status),
        events=events,
    )


def _output(event: Mapping[str, Any]) -> Any:
    context = event.get("context")
    if isinstance(context, Mapping) and "response" in context:
        return context["response"]
    return (event.get("result") or {}).get("context")


def seen(output: Any) -> Any:
    """Return an output as templates see it: of a sequence, the result of its last task as well."""
    if isinstance(output, Mapping) and isinstance(output.get("_prev"), Mapping):
        return {**output, **output["_prev"]}
    return output


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """Return where `found` has not what `expected` has; members that are not expected do not matter."""
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            return [f"{path}: {found!r} is no mapping"]
        return [text for key, value in expected.items() for text in differences(value, found.get(key), f"{path}.{key}")]
    return [] if expected == found else [f"{path}: expected {expected!r}, found {found!r}"]
