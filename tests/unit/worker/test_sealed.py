"""Sealed secrets: opened by the worker that they are for, by nobody else, and not when they were changed."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.sealing import public_key, seal_for
from services.worker.sealed import SealedBox

BOX = SealedBox()


@given(st.binary(max_size=5000))
def test_what_the_api_seals_opens_here(plaintext: bytes) -> None:
    assert BOX.open(seal_for(public_key(BOX.public_key), plaintext)) == plaintext


def test_another_worker_cannot_open_it() -> None:
    with pytest.raises(ValueError, match="another worker"):
        SealedBox().open(seal_for(public_key(BOX.public_key), b"planted"))


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "none"},
        {"v": 2},
        {"eph_pub": base64.b64encode(bytes(32)).decode()},
        {"eph_pub": base64.b64encode(bytes(16)).decode()},
        {"eph_pub": SealedBox().public_key},
        {"ciphertext": ""},
        {"ciphertext": base64.b64encode(bytes(40)).decode()},
        {"ciphertext": None},
        {"ciphertext": "%"},
    ],
)
def test_a_changed_envelope_is_refused(change: dict[str, object]) -> None:
    envelope = {**seal_for(public_key(BOX.public_key), b"planted"), **change}
    with pytest.raises(ValueError):
        BOX.open(envelope)


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"alg": 1}])
def test_what_is_no_envelope_is_refused(answer: object) -> None:
    with pytest.raises(ValueError, match="not sealed"):
        BOX.open(answer)
