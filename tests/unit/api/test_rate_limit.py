"""Token buckets: a burst, then the rate, each client on its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.rate_limit import CLIENTS_MAX, RateLimiter


def test_a_burst_passes_and_then_the_rate() -> None:
    limiter = RateLimiter(per_second=2, burst_seconds=2)
    assert [limiter.take("a", 0.0) for _ in range(4)] == [0.0] * 4
    assert limiter.take("a", 0.0) == pytest.approx(0.5)
    assert limiter.take("a", 0.25) == pytest.approx(0.25)
    assert limiter.take("a", 0.5) == 0.0


def test_clients_do_not_share() -> None:
    limiter = RateLimiter(per_second=1, burst_seconds=1)
    assert limiter.take("a", 0.0) == 0.0
    assert limiter.take("a", 0.0) > 0.0
    assert limiter.take("b", 0.0) == 0.0


def test_no_rate_is_no_limit() -> None:
    limiter = RateLimiter(per_second=0, burst_seconds=1)
    assert {limiter.take("a", 0.0) for _ in range(1000)} == {0.0}


def test_memory_is_bounded() -> None:
    limiter = RateLimiter(per_second=1, burst_seconds=1)
    for number in range(CLIENTS_MAX + 10):
        limiter.take(str(number), 0.0)
    assert len(limiter._buckets) == CLIENTS_MAX


@given(st.lists(st.floats(min_value=0, max_value=5), max_size=200), st.floats(min_value=0.5, max_value=50))
def test_never_more_than_the_burst_and_the_rate_pass(pauses: list[float], rate: float) -> None:
    limiter = RateLimiter(per_second=rate, burst_seconds=1)
    now, passed = 0.0, 0
    for pause in pauses:
        now += pause
        passed += limiter.take("a", now) == 0.0
    assert passed <= max(1.0, rate) + now * rate + 1e-6
