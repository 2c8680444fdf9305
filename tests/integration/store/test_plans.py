"""Hot statements are lookups by an index, and every index of ours serves one: EXPLAIN with the API's own session settings."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from services.api.store.database import Database
from services.api.store.queries import query

LARGE = (
    "event",
    "command",
    "outbox",
    "execution",
    "timer",
    "result_store",
    "step_timing",
    "execution_summary",
    "keychain",
)

HOT = {
    ("stream", "lock_executions"): {"execution_pkey"},
    ("stream", "load_commands"): {"command_pkey"},
    ("stream", "find_idempotent"): {"playhead_event_idempotency"},
    ("stream", "find_events"): {"event_pkey"},
    ("stream", "events_of_batch"): {"playhead_event_stream"},
    ("stream", "append"): {"execution_pkey"},
    ("stream", "update_commands"): {"command_pkey"},
    ("stream", "cancel_commands"): {"command_pkey"},
    ("outbox", "claim"): {"idx_outbox_ready"},
    ("outbox", "mark_published"): {"outbox_pkey"},
    ("outbox", "pending_count"): {"idx_outbox_ready"},
    ("outbox", "release_expired"): {"playhead_outbox_in_flight"},
    ("outbox", "purge_published"): {"playhead_outbox_published"},
    ("execution", "header"): {"execution_pkey"},
    ("execution", "stream_header"): {"execution_pkey"},
    ("execution", "watermarks"): {"execution_pkey"},
    ("execution", "stream"): {"playhead_event_stream"},
    ("execution", "event_page"): {"event_pkey"},
    ("execution", "newest_event"): {"event_pkey"},
    ("execution", "command_by_event"): {"playhead_command_event"},
    ("execution", "list_page"): {"idx_execution_list_page"},
    ("execution", "children"): {"playhead_execution_parent"},
    ("reconcile", "undecided"): {"playhead_execution_undecided"},
    ("reconcile", "renotify"): {"playhead_command_open"},
    ("reconcile", "due_timers"): {"playhead_timer_due"},
    ("snapshot", "newest"): {"projection_snapshot_pkey"},
    ("reconcile", "next_timer"): {"playhead_timer_due"},
    ("child", "ended_children"): {"playhead_command_child", "playhead_execution_parent_command"},
    ("child", "recursions"): {"playhead_execution_recursive"},
    ("child", "orphans"): {"playhead_execution_child_open", "command_pkey"},
    ("child", "orphans_of"): {"playhead_execution_child_open", "command_pkey"},
    ("reference", "loop_items"): {"playhead_command_loop"},
    ("dedup", "purge"): {"playhead_dedup_seen", "subscription_dedup_pkey"},
    ("dedup", "owners"): {"subscription_dedup_pkey"},
    ("execution", "initial_context"): {"event_pkey"},
    ("result_store", "data_by_id"): {"result_store_pkey"},
    ("result_store", "newest_of_step"): {"result_store_eid_name"},
    ("token", "create"): {"playhead_api_token_name"},
    ("audit", "list"): {"audit_pkey"},
    ("audit", "list_of_actor"): {"playhead_audit_actor"},
    ("audit", "list_of_execution"): {"playhead_audit_execution"},
    ("audit", "purge"): {"playhead_audit_time"},
    ("audit", "list_accesses_of_credential"): {"playhead_secret_access_credential"},
    ("audit", "list_accesses_of_execution"): {"playhead_secret_access_execution"},
    ("audit", "purge_accesses"): {"playhead_secret_access_time"},
    ("result_store", "purge_expired"): {"playhead_result_expiry"},
    ("batch", "request_events"): {"playhead_event_request"},
    ("batch", "original_events"): {"playhead_event_batch"},
    ("stage", "of_loop"): {"playhead_stage_loop"},
    ("stage", "to_close"): {"playhead_stage_open"},
    ("replay", "event"): {"playhead_event_id"},
    ("subscription", "newest_of_path"): {"playhead_event_subscription"},
}
EXECUTION_ID = 383629461708341248
# Of the original's schema, for queries of routes that are not hot; or unique, for its rule.
NOT_HOT = {"idx_runtime_status", "idx_runtime_kind_name", "idx_frame_claim_key_unique", "idx_keychain_name_catalog"}


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_dsn, size_min=1, size_max=1)
    yield opened
    await opened.close()


async def plan(database: Database, file: str, name: str) -> list[str]:
    sql = query(file, name)
    parameters = max((int(number) for number in re.findall(r"\$(\d+)", sql)), default=0)
    first = f"'{EXECUTION_ID}'" if re.search(r"execution_id = \$1", sql) else "NULL"  # partitions are pruned by it
    arguments = f"({', '.join([first, *['NULL'] * (parameters - 1)])})" if parameters else ""
    async with database.connection() as connection:
        await connection.execute(f"PREPARE hot AS {sql}")
        rows = await connection.fetch(f"EXPLAIN (COSTS OFF) EXECUTE hot{arguments}")
    return [row[0] for row in rows]


async def parents(database: Database) -> dict[str, str]:
    """Name of the partitioned index by the name of a partition's."""
    rows = await database.fetch(
        "SELECT c.relname AS child, p.relname AS parent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "JOIN pg_class p ON p.oid = i.inhparent WHERE c.relkind = 'i'"
    )
    return {row["child"]: row["parent"] for row in rows}


def indexes(lines: list[str]) -> set[str]:
    return {match[1] for line in lines for match in re.finditer(r"(?:using|Index Scan on) (\w+)", line)}


@pytest.mark.parametrize(("file", "name"), HOT)
async def test_a_hot_statement_uses_its_index(database: Database, file: str, name: str) -> None:
    lines = await plan(database, file, name)
    known = await parents(database)
    used = {known.get(index, index) for index in indexes(lines)}
    assert used >= HOT[file, name], lines
    scanned = [line for line in lines if re.search(rf"Seq Scan on ({'|'.join(LARGE)})", line)]
    assert not scanned
    assert not [line for line in lines if "Materialize" in line], "a whole table is read, by its index at best"


async def test_every_index_of_ours_serves_a_hot_statement(database: Database) -> None:
    rows = await database.fetch(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_inherits h ON h.inhrelid = c.oid "
        "LEFT JOIN pg_constraint k ON k.conindid = c.oid "
        "WHERE n.nspname = 'noetl' AND h.inhrelid IS NULL AND k.oid IS NULL"
    )
    ours = {row["relname"] for row in rows}
    served = {index for needed in HOT.values() for index in needed}
    assert ours - served == NOT_HOT
