"""The AsyncAPI document is valid and names every subject and every event type of the code."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

from jsonschema.validators import validator_for

from shared.messaging.asyncapi import EVENT_TYPES, asyncapi_document
from shared.wire import subjects

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = ROOT / "tests/golden/asyncapi/3.0.0.json.gz"
EVENT_TYPE = re.compile(r"\"((?:playbook|workflow|command|call|step|loop|timer|child)\.[a-z_]+)\"")
OF_OTHERS = {"playbook.cancelled"}  # read from the logs of other lines, never written


def test_the_document_is_asyncapi_3() -> None:
    schema = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    assert [error.message for error in validator_for(schema)(schema).iter_errors(asyncapi_document())] == []


def test_every_subject_is_a_channel() -> None:
    addresses = {channel["address"] for channel in asyncapi_document()["channels"].values()}
    assert addresses == {
        f"{subjects.EVENTS_PREFIX}.{{tenant}}.{{organization}}.{{execution_id}}.{{partition}}",
        subjects.COMMANDS_SUBJECT,
        f"{subjects.COMMANDS_SUBJECT}.{{pool}}.{{execution_id}}",
        subjects.OUTBOX_KICK_SUBJECT,
        f"{subjects.STREAM_WAKE_SUBJECT}.{{execution_id}}",
    }
    named = {name for name in vars(subjects) if name.endswith(("_SUBJECT", "_PREFIX"))}
    assert named == {"EVENTS_PREFIX", "COMMANDS_SUBJECT", "OUTBOX_KICK_SUBJECT", "STREAM_WAKE_SUBJECT"}


def test_what_is_published_goes_to_a_documented_subject() -> None:
    published = (
        subjects.event_subject(700),
        subjects.command_subject(700, pool=None),
        subjects.command_subject(7, pool="x"),
    )
    patterns = [
        re.sub(r"\\\{\w+\\\}", "[^.]+", re.escape(channel["address"]))
        for channel in asyncapi_document()["channels"].values()
    ]
    for subject in published:
        assert any(re.fullmatch(pattern, subject) for pattern in patterns), subject


def test_every_event_type_of_the_code_is_described() -> None:
    found: set[str] = set()
    for part in ("shared/engine", "services/api", "services/worker", "services/orchestrator"):
        for path in (ROOT / part).rglob("*.py"):
            found |= set(EVENT_TYPE.findall(path.read_text()))
    assert found - OF_OTHERS == set(EVENT_TYPES) - {"execution.cancelled"}


def test_parameters_of_addresses_are_described() -> None:
    for channel in asyncapi_document()["channels"].values():
        assert set(channel.get("parameters", {})) == set(re.findall(r"\{(\w+)\}", channel["address"]))
