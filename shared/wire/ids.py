"""Snowflake ids. Pure: the milliseconds are an argument; the caller owns the clock.

Two layouts exist in the data (storage_messaging.md section 2): the application layout shifts the time by 22 bits
(10 node bits, 12 sequence bits), the SQL function of the original by 23 (shard constant 1 at bit 18). Both are read
anywhere, because an id is an opaque BIGINT; `SnowflakeGenerator` writes the layout it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

EPOCH_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z, the epoch of both layouts
NODE_MAX = 1023  # 10 node bits of the application layout


class SnowflakeLayout(StrEnum):
    """Which bit layout new ids get."""

    APP = "app"  # ms << 22 | node (10 bits) << 12 | sequence (12 bits)
    SQL = "sql"  # ms << 23 | node (5 bits) << 18 | sequence (18 bits)


@dataclass(frozen=True, slots=True)
class _Bits:
    time_shift: int
    node_shift: int
    node_mask: int
    sequence_mask: int


_BITS = {
    SnowflakeLayout.APP: _Bits(time_shift=22, node_shift=12, node_mask=0x3FF, sequence_mask=0xFFF),
    SnowflakeLayout.SQL: _Bits(time_shift=23, node_shift=18, node_mask=0x1F, sequence_mask=0x3FFFF),
}


class SnowflakeGenerator:
    """Mints strictly increasing ids for one node.

    When more ids are wanted in one millisecond than the sequence holds, or the clock steps back, the generator runs
    ahead of the clock in its own milliseconds instead of waiting: ids stay unique and increasing.
    """

    def __init__(self, *, node_id: int, layout: SnowflakeLayout = SnowflakeLayout.APP) -> None:
        """Take `node_id` (0..1023 for `app`, 0..31 for `sql`), unique among the live writers of one database.

        Raises:
            ValueError: `node_id` does not fit the layout.
        """
        bits = _BITS[layout]
        if not 0 <= node_id <= bits.node_mask:
            raise ValueError(f"node_id {node_id} is outside 0..{bits.node_mask} of layout {layout}")
        self._bits = bits
        self._node = node_id << bits.node_shift
        self._last_ms = 0
        self._sequence = 0

    def next(self, *, unix_ms: int) -> int:
        """Return the next id at `unix_ms` milliseconds since the Unix epoch."""
        elapsed = unix_ms - EPOCH_MS
        if elapsed > self._last_ms:
            self._last_ms, self._sequence = elapsed, 0
        else:
            self._sequence += 1
            if self._sequence > self._bits.sequence_mask:
                self._last_ms, self._sequence = self._last_ms + 1, 0
        return (self._last_ms << self._bits.time_shift) | self._node | self._sequence
