"""Pure wire formats: ids, event envelope, command notification, subjects, shard map. No I/O, clock or environment."""
