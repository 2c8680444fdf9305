"""Encryption at rest: what is written opens only in its place, everything else that may be stored is read or named."""

from __future__ import annotations

import base64
import json
import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from services.api.crypto import Cipher, CipherError, CorruptValueError, Key, KeyUnavailableError, key_digest, parse_key

OLD, NEW, FOREIGN = Key("old", b"o" * 32), Key("new", b"n" * 32), Key("foreign", b"f" * 32)
PLACE = {"table": "credential", "row": "db"}
SECRET = b'{"password": "planted"}'


def gcm(key: bytes, plaintext: bytes) -> str:
    nonce = os.urandom(12)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, plaintext, None)).decode()


def original_envelope(key: bytes, plaintext: bytes, **changes: object) -> str:
    data_key = os.urandom(32)
    dek = {"p": "local", "kid": "env:NOETL_ENCRYPTION_KEY", "kv": "v1", "ct": gcm(key, data_key)} | changes
    return json.dumps({"v": 1, "alg": "AES-256-GCM", "ct": gcm(data_key, plaintext), "dek": dek})


def version_1(key: bytes, plaintext: bytes, *, table: str, row: str) -> str:
    parts = ("v1", key_digest(key), table, row)
    bound = b"".join(len(part).to_bytes(4, "big") + part.encode() for part in parts)
    nonce = os.urandom(12)
    sealed = AESGCM(key).encrypt(nonce, plaintext, bound)
    return ".".join(
        ["v1", key_digest(key), *(base64.urlsafe_b64encode(x).rstrip(b"=").decode() for x in (nonce, sealed))]
    )


@given(st.binary(max_size=2000), st.text(max_size=50))
def test_what_is_written_opens_in_its_place(plaintext: bytes, row: str) -> None:
    cipher = Cipher((NEW, OLD))
    stored = cipher.encrypt(plaintext, table="keychain", row=row)
    assert stored.startswith("v2.new.")
    assert cipher.decrypt(stored, table="keychain", row=row) == plaintext


def test_every_value_has_a_data_key_of_its_own() -> None:
    one, two = (Cipher((NEW,)).encrypt(SECRET, **PLACE).split(".") for _ in range(2))
    assert one[2] != two[2]
    assert one[3] != two[3]
    assert "planted" not in ".".join(one)


@pytest.mark.parametrize(
    "place",
    [
        {"table": "credential", "row": "other"},
        {"table": "keychain", "row": "db"},
        {"table": "credential.meta", "row": "db"},
    ],
)
def test_a_value_copied_elsewhere_does_not_open(place: dict[str, str]) -> None:
    with pytest.raises(CorruptValueError):
        Cipher((NEW,)).decrypt(Cipher((NEW,)).encrypt(SECRET, **PLACE), **place)


def test_parts_of_two_values_do_not_make_a_third() -> None:
    cipher = Cipher((NEW,))
    mine = cipher.encrypt(SECRET, **PLACE).split(".")
    other = cipher.encrypt(b"{}", table="credential", row="other").split(".")
    for mixed in ([*mine[:3], other[3]], [*mine[:2], other[2], mine[3]]):
        with pytest.raises(CorruptValueError):
            cipher.decrypt(".".join(mixed), **PLACE)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_changed_character_is_noticed(position: int, change: int) -> None:
    cipher = Cipher((NEW,))
    stored = bytearray(cipher.encrypt(SECRET, **PLACE).encode())
    at = len("v2.new.") + position % (len(stored) - len("v2.new."))
    stored[at] ^= change
    try:
        text = stored.decode("ascii")
    except UnicodeDecodeError:
        return
    try:
        opened = cipher.decrypt(text, **PLACE)
    except CorruptValueError:
        return
    assert opened == SECRET  # the unused bits of the last base64 character


@pytest.mark.parametrize(
    "stored",
    [
        version_1(OLD.secret, SECRET, **PLACE),
        gcm(OLD.secret, SECRET),
        original_envelope(OLD.secret, SECRET),
        SECRET.decode(),
    ],
    ids=["version 1", "base64 of the original", "envelope of the original", "plain of the original"],
)
def test_every_earlier_form_is_read_and_becomes_ours(stored: str) -> None:
    cipher = Cipher((NEW, OLD))
    assert cipher.decrypt(stored, **PLACE) == SECRET
    assert not cipher.is_current(stored)
    rewrapped = cipher.rewrap(stored, **PLACE)
    assert cipher.is_current(rewrapped)
    assert Cipher((NEW,)).decrypt(rewrapped, **PLACE) == SECRET


def test_rotation_wraps_the_data_key_and_leaves_the_value() -> None:
    stored = Cipher((OLD,)).encrypt(SECRET, **PLACE)
    rotated = Cipher((NEW, OLD)).rewrap(stored, **PLACE)
    assert rotated.split(".")[3] == stored.split(".")[3]
    assert rotated.split(".")[2] != stored.split(".")[2]
    assert Cipher((NEW,)).decrypt(rotated, **PLACE) == SECRET
    with pytest.raises(KeyUnavailableError, match="'new'"):
        Cipher((OLD,)).decrypt(rotated, **PLACE)


@pytest.mark.parametrize("stored", [gcm(OLD.secret, SECRET), original_envelope(OLD.secret, SECRET)])
@pytest.mark.parametrize("keys", [(), (FOREIGN,)])
def test_a_missing_key_is_named_with_the_way_to_set_it(stored: str, keys: tuple[Key, ...]) -> None:
    with pytest.raises(KeyUnavailableError, match="NOETL_ENCRYPTION_KEY"):
        Cipher(keys).decrypt(stored, **PLACE)


def test_a_key_of_the_same_name_and_other_bytes_is_noticed() -> None:
    stored = Cipher((OLD,)).encrypt(SECRET, **PLACE)
    with pytest.raises(CorruptValueError):
        Cipher((Key("old", b"x" * 32),)).decrypt(stored, **PLACE)


def test_a_key_kept_by_a_service_elsewhere_is_named() -> None:
    with pytest.raises(KeyUnavailableError, match="gcp-kms"):
        Cipher((OLD,)).decrypt(original_envelope(OLD.secret, SECRET, p="gcp-kms"), **PLACE)


def test_data_that_looks_like_an_envelope_stays_data() -> None:
    for text in (
        '{"dek": 1}',
        '{"v":1,"alg":"x","ct":"","dek":{}}',
        '"dek"',
        "12345678901234567890123456789012345678901234",
    ):
        assert Cipher((OLD,)).decrypt(text, **PLACE) == text.encode()


@pytest.mark.parametrize(
    "text", ["v2.", "v2.old", "v2.old.x.y", "v2.old..", "v1.old.a.b", "v2.old." + "A" * 80 + ".=="]
)
def test_what_was_cut_is_damaged_not_a_crash(text: str) -> None:
    with pytest.raises(CorruptValueError):
        Cipher((OLD,)).decrypt(text, **PLACE)


@given(
    st.one_of(
        st.text(max_size=120),
        st.from_regex(r"v[12]\.old\.[A-Za-z0-9_-]{0,90}\.[A-Za-z0-9_-]{0,60}", fullmatch=True),
        st.from_regex(r"[A-Za-z0-9+/]{30,60}={0,3}", fullmatch=True),
        st.fixed_dictionaries(
            {
                "v": st.just(1),
                "alg": st.just("AES-256-GCM"),
                "ct": st.one_of(st.text(max_size=60), st.integers(), st.none()),
                "dek": st.dictionaries(
                    st.sampled_from(["p", "kid", "ct"]), st.one_of(st.just("local"), st.text(), st.integers())
                ),
            }
        ).map(json.dumps),
    )
)
def test_whatever_is_stored_is_opened_or_named_and_never_a_crash(text: str) -> None:
    cipher = Cipher((OLD,))
    cipher.key_of(text)
    try:
        cipher.decrypt(text, **PLACE)
    except CipherError:
        return


def test_keys_have_a_name_given_or_made() -> None:
    encoded = base64.b64encode(OLD.secret).decode()
    assert parse_key(f"2026-11:{encoded}") == Key("2026-11", OLD.secret)
    assert parse_key(encoded).key_id == key_digest(OLD.secret)
    for wrong in ("x", f"a b:{encoded}", base64.b64encode(b"short").decode()):
        with pytest.raises(ValueError) as caught:
            parse_key(wrong)
        assert encoded not in str(caught.value)
    with pytest.raises(ValueError, match="different names"):
        Cipher((OLD, Key("old", b"x" * 32)))
