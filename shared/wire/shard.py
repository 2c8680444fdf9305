"""Which shard owns an execution. The function can never change: a change re-maps every execution."""

from __future__ import annotations

import struct

import xxhash

SHARD_COUNT_MAX = 1024  # the practical maximum of the original (storage_messaging.md section 6.3)


def shard_for(execution_id: int, shard_count: int) -> int:
    """Return the shard (0-based) of `execution_id`: xxHash64, seed 0, of its 8 little-endian bytes, modulo the count."""
    if shard_count <= 1:
        return 0
    return int(xxhash.xxh64_intdigest(struct.pack("<q", execution_id), seed=0) % shard_count)
