"""The writes that were recorded on the original, replayed in their order on a copy of the same database.

Ids that the original minted are replaced by the ones minted here, as far as earlier answers tell them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from services.dev.parity.masks import WRITE_MASKS
from services.dev.parity.recordings import Recording, Request, load_recordings
from services.dev.parity.rules import Mask, MaskKind
from services.dev.parity.translate import Translator
from tests.support.api import RunningApi, running_api
from tests.support.parity import GOLDEN, answer_of, check, declared
from tests.support.postgres import PostgresServer

RECORDINGS = load_recordings(GOLDEN / "writes")
_MINTED_FROM = 766_831_000_000_000_000  # smaller ids stand in the database already
_JSON = {"Content-Type": "application/json"}


def _post(path: str, body: object, name: str) -> Request:
    return Request(name=name, method="POST", path=path, headers=_JSON, body=json.dumps(body))


_GOLDEN_PLAYBOOK = next(r.request.body for r in RECORDINGS if r.request.name == "016_catalog_register_same_again")

# What the kept-aside requests left behind, as far as later ones build on it: sent before the request of that name.
BEFORE: dict[str, tuple[Request, ...]] = {
    "016_catalog_register_same_again": (
        Request(name="015", method="POST", path="/api/catalog/register", headers=_JSON, body=_GOLDEN_PLAYBOOK),
    ),
    "049_cred_unknown_type": (
        _post("/api/credentials", {"name": "hg_bearer", "type": "bearer", "data": {"token": "t"}}, "048"),
    ),
    "064_execute_payload": (_post("/api/execute", {"path": "golden/http_golden"}, "063"),),
    "067_execute_version": (_post("/api/execute", {"catalog_id": "766829313080426647"}, "066"),),
    "136_event_missing": (
        _post("/api/events", {"execution_id": "766816914810077217", "step": "ghost", "name": "step.enter"}, "135"),
    ),
    "160_vars_get_again": (Request(name="159", method="GET", path="/api/vars/766816914810077217/x"),),
    "184_keychain_get_global": (Request(name="183", method="GET", path="/api/keychain/766829313080426647/hgk"),),
    "193_pool_register_missing": (_post("/api/worker/pool/register", {"name": "hg-pool", "runtime": "cpu"}, "192"),),
}
# Ids that only a kept-aside answer tells.
UNTOLD = {"063": ("execution_id", "766831442981552565")}

_NO_WORKER = "no worker runs in this test"
REPLAY_MASKS: tuple[Mask, ...] = (
    *(mask for mask in WRITE_MASKS if mask.kind is not MaskKind.ID),  # ids are translated here, and compared
    Mask(route="POST /api/worker/pool/register", at="/runtime_id", kind=MaskKind.ID, reason="minted"),
    Mask(
        route="POST /api/auth/session/validate",
        at="/error",
        kind=MaskKind.TYPE,
        reason="the database of that credential is not here",
    ),
    *(
        Mask(route="GET /api/executions", at=f"/{index}/{key}", kind=MaskKind.ANY, reason=_NO_WORKER)
        for index in range(6)
        for key in ("status", "end_time", "duration_*", "progress")
    ),
)


class Replay:
    """Sends the recordings in order and keeps what each differs in."""

    def __init__(self, api: RunningApi) -> None:
        self._api = api
        self._names = Translator(minted_from=_MINTED_FROM)
        self.problems: dict[str, list[str]] = {}

    async def run(self) -> None:
        for recording in RECORDINGS:
            for request in BEFORE.get(recording.request.name, ()):
                answer = await answer_of(self._api, self._names.request(request))
                if request.name in UNTOLD:
                    key, old = UNTOLD[request.name]
                    self._names.know(old, str(json.loads(answer.body)[key]))
            await self._replay(recording)

    async def _replay(self, recording: Recording) -> None:
        request = self._names.request(recording.request)
        answer = await answer_of(self._api, request)
        if recording.answer is None:
            self.problems[request.name] = [] if answer.status == 200 else [f"status {answer.status}"]
            return
        self._names.learn(recording.answer, answer)
        base = self._names.answer(recording.answer)
        self.problems[request.name] = check(request, base, answer, declared(request.name, "writes"), REPLAY_MASKS)


@pytest.fixture(scope="module")
async def replay(postgres_server: PostgresServer, golden_template: str) -> AsyncIterator[Replay]:
    """Every write, replayed once."""
    dsn = await postgres_server.create_database("parity_writes", golden_template)
    async with running_api(dsn, internal_token="", noetl_snowflake_layout="sql") as running:
        made = Replay(running)
        await made.run()
        yield made
    await postgres_server.drop_database("parity_writes")


@pytest.mark.parametrize("name", [item.request.name for item in RECORDINGS])
def test_a_write_is_answered_as_by_the_original(replay: Replay, name: str) -> None:
    assert replay.problems[name] == []
