"""Bodies: what JSON leaves open is refused with its place; everything else is read as orjson reads it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.json_body import DEPTH_MAX, BodyError, parse

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


def refusal(raw: bytes) -> dict[str, Any]:
    with pytest.raises(BodyError) as caught:
        parse(raw)
    return caught.value.detail[0]


@given(VALUES)
def test_a_good_body_is_read_as_it_is(value: Any) -> None:
    raw = json.dumps(value).encode()
    try:
        expected = orjson.loads(raw)
    except orjson.JSONDecodeError:  # a lone surrogate
        assert refusal(raw)["type"] == "json_invalid"
        return
    assert parse(raw) == expected


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_with_a_place(raw: bytes) -> None:
    try:
        parse(raw)
    except BodyError as error:
        refused = error.detail
    else:
        return
    assert refused[0]["loc"][0] == "body"


@pytest.mark.parametrize(
    ("raw", "kind", "place"),
    [
        (b'{"a": 1, "a": 2}', "json_duplicate_key", "a"),
        (b'{"x": [{"deep": {"b" : 1, "c": ":", "b": 2}}]}', "json_duplicate_key", "b"),
        (b'{"n": 18446744073709551616}', "json_integer_size", None),
        (b'{"n": [-9223372036854775809]}', "json_integer_size", None),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "json_too_deep", None),
        (b"[" * 5000 + b"]" * 5000, "json_invalid", None),
        (b'{"n": NaN}', "json_invalid", None),
        (b'{"n": Infinity}', "json_invalid", None),
        (b'{"n": "\\ud800"}', "json_invalid", None),
        (b'{"n": "\xff"}', "json_invalid", None),
        (b"{", "json_invalid", None),
    ],
)
def test_what_json_leaves_open_is_refused(raw: bytes, kind: str, place: str | None) -> None:
    error = refusal(raw)
    assert error["type"] == kind
    assert place is None or error["loc"] == ["body", place]


@pytest.mark.parametrize("raw", [b'{"n": 1e20}', b'{"n": 18446744073709551615}', b'{"a": "b\\":c", "d": {"a": 1}}'])
def test_what_only_looks_odd_is_read(raw: bytes) -> None:
    assert parse(raw) == json.loads(raw)
