"""The wire formats: ids, shards, subjects, notifications."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.wire.ids import EPOCH_MS, SnowflakeGenerator, SnowflakeLayout
from shared.wire.notification import CommandNotification
from shared.wire.shard import shard_for
from shared.wire.subjects import command_subject, event_subject, subject_token
from shared.wire.types import parse_id


@pytest.mark.parametrize(
    ("layout", "moment_ms", "base"),
    [
        (SnowflakeLayout.APP, 1_767_225_600_000, 264905529753600000),  # 2026-01-01, storage_messaging.md section 2.2
        (SnowflakeLayout.SQL, 1_767_225_600_000, 529811059507200000),
        (SnowflakeLayout.APP, 1_781_913_600_000, 326511466905600000),  # 2026-06-20
    ],
)
def test_ids_start_at_the_published_base_of_their_moment(layout: SnowflakeLayout, moment_ms: int, base: int) -> None:
    node = 1
    shift = 12 if layout is SnowflakeLayout.APP else 18
    assert SnowflakeGenerator(node_id=node, layout=layout).next(unix_ms=moment_ms) == base | node << shift


@given(st.lists(st.integers(min_value=-5, max_value=5), min_size=1, max_size=300))
def test_ids_increase_whatever_the_clock_does(steps: list[int]) -> None:
    generator = SnowflakeGenerator(node_id=3)
    now = EPOCH_MS + 10_000
    minted = []
    for step in steps:
        now += step
        minted.append(generator.next(unix_ms=now))
    assert minted == sorted(set(minted))


def test_more_ids_than_fit_a_millisecond_stay_unique() -> None:
    generator = SnowflakeGenerator(node_id=0)
    minted = [generator.next(unix_ms=EPOCH_MS + 1) for _ in range(10_000)]
    assert len(set(minted)) == 10_000


@pytest.mark.parametrize(
    ("layout", "node"), [(SnowflakeLayout.APP, 1024), (SnowflakeLayout.SQL, 32), (SnowflakeLayout.APP, -1)]
)
def test_a_node_that_does_not_fit_is_refused(layout: SnowflakeLayout, node: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        SnowflakeGenerator(node_id=node, layout=layout)


@pytest.mark.parametrize(
    ("execution_id", "count", "shard"),
    [
        (0, 2, 1),
        (1, 16, 5),
        (1, 1024, 405),
        (325, 8, 4),
        (320816801799737344, 16, 14),
        (9223372036854775807, 10, 2),
        (-42, 1024, 1012),
        (12345, 1, 0),
    ],
)
def test_shards_follow_the_published_vectors(execution_id: int, count: int, shard: int) -> None:
    assert shard_for(execution_id, count) == shard


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (7, 7),
        ("7", 7),
        ("007", 7),
        (0, None),
        (-1, None),
        (True, None),
        ("x", None),
        ("1.0", None),
        ("٣", None),
        (2**63, None),
        (2**63 - 1, 2**63 - 1),
        (None, None),
        ("9" * 30, None),
    ],
)
def test_ids_are_numbers_or_digits(value: object, parsed: int | None) -> None:
    assert parse_id(value) == parsed


def test_event_subjects_carry_the_execution_as_third_token() -> None:
    assert event_subject(42, tenant="a.b", organization="", partitions=4) == "noetl.events.a-b.default.42.3"


def test_command_subjects_are_bare_without_routing() -> None:
    assert command_subject(42, pool=None) == "noetl.commands"
    assert command_subject(42, pool="gpu pool") == "noetl.commands.gpu-pool.42"


def test_an_empty_token_gets_the_default() -> None:
    assert subject_token(None) == "default"


@pytest.mark.parametrize(
    "body", [[], None, {}, {"execution_id": "x", "event_id": 1}, {"execution_id": 1, "event_id": -1}]
)
def test_a_malformed_notification_is_refused(body: object) -> None:
    with pytest.raises(ValueError, match="command notification"):
        CommandNotification.from_json(body)


def test_a_notification_survives_the_wire() -> None:
    sent = CommandNotification(execution_id=1, event_id=2, command_id=3, step="s", server_url="http://x")
    assert CommandNotification.from_json({**sent.to_json(), "execution_pool": "shared"}) == sent
