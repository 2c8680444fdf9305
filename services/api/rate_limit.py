"""Token buckets per client, in this process: a client that asks too often is told when to come back."""

from __future__ import annotations

from collections import OrderedDict

CLIENTS_MAX = 10_000  # buckets; the least recently seen client is forgotten and starts with a full one


class RateLimiter:
    """Lets `per_second` requests of each client pass, and a burst of `burst_seconds` worth of them at once."""

    def __init__(self, *, per_second: float, burst_seconds: float) -> None:
        """Take the rate (requests per second; 0: no limit) and the burst (seconds)."""
        self._rate = per_second
        self._size = max(1.0, per_second * burst_seconds)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client: requests left, at monotonic time

    def take(self, client: str, now: float) -> float:
        """Take one request of `client` at monotonic time `now`; return 0, or the seconds until one is free."""
        if self._rate <= 0:
            return 0.0
        left, then = self._buckets.pop(client, (self._size, now))
        left = min(self._size, left + (now - then) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._buckets[client] = (left if wait else left - 1, now)
        if len(self._buckets) > CLIENTS_MAX:
            self._buckets.popitem(last=False)
        return wait
