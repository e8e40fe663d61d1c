"""Sealing against its text, spelled out a second time with other primitives' bindings."""

import hmac
import struct
from collections.abc import Callable
from hashlib import blake2b, sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indelible.errors import UnsealError
from indelible.sealing import (
    NO_TOKEN,
    EpochKeys,
    Kind,
    LogKeys,
    LogSecrets,
    Sealer,
    kdf,
    padme,
)
from indelible_protocol.ids import ChainId, LogId
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_generichash_blake2b_salt_personal,
)

LOG_ID = LogId(sha256(b"log").digest())
OTHER_LOG_ID = LogId(sha256(b"other log").digest())
TOKEN = sha256(b"token").digest()
CHAIN = ChainId(bytes(16))


def secrets_of(generation: int = 1, epoch: int = 1, *, seed: bytes = b"") -> LogSecrets:
    return LogSecrets(
        generation=generation,
        epoch=epoch,
        generation_secret=sha256(b"generation %d" % generation + seed).digest(),
        epoch_secret=sha256(b"epoch %d" % epoch + seed).digest(),
    )


KEYS = LogKeys(LOG_ID, [secrets_of()])


def reference_padme(length: int) -> int:
    """The next multiple of the step that the length's size class has."""
    if length <= 32:
        return 32
    exponent = length.bit_length() - 1
    last_bits = exponent - exponent.bit_length()
    step = 1 << last_bits
    return -(-length // step) * step


def reference_seal(kind: int, epoch: int, token: bytes, plaintext: bytes) -> bytes:
    secrets = secrets_of()
    secret = secrets.generation_secret if kind == 1 else secrets.epoch_secret
    scope = LOG_ID + struct.pack(">I", 1) + (b"" if kind == 1 else struct.pack(">I", 1))
    word = "key" if kind == 1 else "val"

    def key(use: str) -> bytes:
        label = f"indelible/v1/log/{word}-{use}".encode()
        return hmac.new(secret, label + b"\0" + scope + b"\1", sha256).digest()

    context = b"indlentr" + struct.pack(">HB32sII32s", 1, kind, LOG_ID, 1, epoch, token)
    padded = struct.pack(">I", len(plaintext)) + plaintext
    padded += bytes(reference_padme(len(padded)) - len(padded))
    siv = crypto_generichash_blake2b_salt_personal(
        context + padded, digest_size=32, key=key("siv"), person=b"indelible/siv/1"
    )
    return siv + crypto_aead_xchacha20poly1305_ietf_encrypt(
        padded, context + siv[24:], siv[:24], key("enc")
    )


@given(st.binary(max_size=300))
def test_keys_and_values_are_sealed_as_the_protocol_says(plaintext: bytes) -> None:
    assert KEYS.seal_key(plaintext) == reference_seal(1, 0, bytes(32), b"\0" + plaintext)
    assert KEYS.seal_value(TOKEN, plaintext) == reference_seal(2, 1, TOKEN, plaintext)


@given(st.binary(max_size=3_000))
def test_what_was_sealed_opens(plaintext: bytes) -> None:
    assert KEYS.open_key(KEYS.seal_key(plaintext)) == plaintext
    assert KEYS.open_value(TOKEN, KEYS.seal_value(TOKEN, plaintext)) == plaintext
    assert KEYS.open_memo(CHAIN, 9, KEYS.seal_memo(CHAIN, 9, plaintext)) == plaintext


def test_padding_is_padme_for_every_length_to_3000() -> None:
    previous = 0
    for length in range(3_001):
        padded = padme(length)
        assert padded == reference_padme(length)
        assert length <= padded <= max(32, length * 1.12)
        assert padded >= previous
        previous = padded
        assert padme(padded) == padded
    assert len({padme(length) for length in range(3_001)}) == 81


def test_the_plaintext_of_every_length_to_3000_is_padded_to_its_class() -> None:
    for length in range(0, 3_001, 7):
        sealed = KEYS.seal_value(TOKEN, bytes(length))
        assert len(sealed) == 48 + padme(length + 4)
        assert KEYS.open_value(TOKEN, sealed) == bytes(length)


@pytest.mark.parametrize("length", [0, 1, 28, 29, 100])
def test_every_flipped_bit_is_refused(length: int) -> None:
    sealed = KEYS.seal_value(TOKEN, b"v" * length)
    for bit in range(8 * len(sealed)):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UnsealError):
            KEYS.open_value(TOKEN, bytes(altered))


def test_every_shorter_or_longer_ciphertext_is_refused() -> None:
    sealed = KEYS.seal_value(TOKEN, b"value")
    for length in range(len(sealed)):
        with pytest.raises(UnsealError):
            KEYS.open_value(TOKEN, sealed[:length])
    for more in (b"\x00", bytes(32)):
        with pytest.raises(UnsealError):
            KEYS.open_value(TOKEN, sealed + more)


def test_a_ciphertext_opens_nowhere_but_in_its_place() -> None:
    value = KEYS.seal_value(TOKEN, b"value")
    key = KEYS.seal_key(b"key")
    memo = KEYS.seal_memo(CHAIN, 1, b"memo")
    attempts: list[Callable[[], bytes]] = [
        lambda: KEYS.open_value(key[:32], value),  # another key's
        lambda: KEYS.open_key(value),
        lambda: KEYS.open_value(NO_TOKEN, key),
        lambda: KEYS.open_value(CHAIN + (1).to_bytes(8, "big") + bytes(8), memo),
        lambda: KEYS.open_memo(CHAIN, 2, memo),
        lambda: KEYS.open_meta(value),
        lambda: LogKeys(OTHER_LOG_ID, [secrets_of()]).open_value(TOKEN, value),
        lambda: LogKeys(LOG_ID, [secrets_of(seed=b"x")]).open_value(TOKEN, value),
    ]
    for attempt in attempts:
        with pytest.raises(UnsealError):
            attempt()


def test_every_failure_says_the_same() -> None:
    sealed = KEYS.seal_value(TOKEN, b"value")
    messages = set()
    for altered in (
        b"",
        sealed[:79],
        sealed[:-1] + bytes([sealed[-1] ^ 1]),
        bytes([sealed[0] ^ 1]) + sealed[1:],
        LogKeys(OTHER_LOG_ID, [secrets_of()]).seal_value(TOKEN, b"value"),
        _forged(b"\x00\x00\x00\x01a" + bytes(26) + b"x"),
    ):
        with pytest.raises(UnsealError) as caught:
            KEYS.open_value(TOKEN, altered)
        messages.add(str(caught.value))
    assert len(messages) == 1


def _forged(padded: bytes, siv: bytes | None = None) -> bytes:
    """Authentic in every other respect: what a member with the keys could make."""
    secrets = secrets_of()
    scope = LOG_ID + struct.pack(">II", 1, 1)
    context = b"indlentr" + struct.pack(">HB32sII32s", 1, 2, LOG_ID, 1, 1, TOKEN)
    if siv is None:
        siv_key = kdf(secrets.epoch_secret, "log/val-siv", scope)
        siv = blake2b(
            context + padded, digest_size=32, key=siv_key, person=b"indelible/siv/1"
        ).digest()
    return siv + crypto_aead_xchacha20poly1305_ietf_encrypt(
        padded, context + siv[24:], siv[:24], kdf(secrets.epoch_secret, "log/val-enc", scope)
    )


def test_an_siv_of_something_else_is_refused() -> None:
    """It is what the service compares values by: one value must not pass for another."""
    padded = b"\x00\x00\x00\x01a".ljust(32, b"\x00")
    assert KEYS.open_value(TOKEN, _forged(padded)) == b"a"
    with pytest.raises(UnsealError):
        KEYS.open_value(TOKEN, _forged(padded, siv=KEYS.value_id(TOKEN, b"b")))


def test_padding_that_sealing_does_not_make_is_refused() -> None:
    one = b"\x00\x00\x00\x01a"
    assert KEYS.open_value(TOKEN, _forged(one.ljust(32, b"\x00"))) == b"a"
    for padded in (
        one.ljust(31, b"\x00") + b"x",  # not zero
        one.ljust(36, b"\x00"),  # more than needed
        b"\x00\x00\x00\x1d".ljust(32, b"\x00"),  # longer than there is
        b"\xff\xff\xff\xff".ljust(32, b"\x00"),
    ):
        with pytest.raises(UnsealError):
            KEYS.open_value(TOKEN, _forged(padded))


def test_sealing_is_deterministic_and_shows_equality_only_at_one_place() -> None:
    value = KEYS.seal_value(TOKEN, b"value")
    assert value == KEYS.seal_value(TOKEN, b"value")
    assert value[:32] == KEYS.value_id(TOKEN, b"value")
    assert KEYS.seal_key(b"key")[:32] == KEYS.token(b"key")
    others = [
        KEYS.seal_value(sha256(b"other").digest(), b"value"),
        KEYS.seal_value(TOKEN, b"valuf"),
        KEYS.seal_key(b"value"),
        LogKeys(OTHER_LOG_ID, [secrets_of()]).seal_value(TOKEN, b"value"),
    ]
    chunks = {sealed[at : at + 16] for sealed in [value, *others] for at in (0, 16, 32, 48)}
    assert len(chunks) == 4 * 5


def test_tokens_outlive_an_epoch_and_values_do_not() -> None:
    older, newer = secrets_of(), secrets_of(epoch=2)
    newer = LogSecrets(
        generation=1,
        epoch=2,
        generation_secret=older.generation_secret,
        epoch_secret=newer.epoch_secret,
    )
    before, after = LogKeys(LOG_ID, [older]), LogKeys(LOG_ID, [older, newer])
    assert before.seal_key(b"key") == after.seal_key(b"key")
    value = before.seal_value(TOKEN, b"value")
    assert after.seal_value(TOKEN, b"value") != value
    assert after.open_value(TOKEN, value) == b"value"
    assert after.alts(TOKEN, b"value") == (value[:32],)
    assert before.alts(TOKEN, b"value") == ()
    with pytest.raises(UnsealError):
        before.open_value(TOKEN, after.seal_value(TOKEN, b"value"))


def test_alts_name_at_most_eight_epochs_of_the_generation() -> None:
    epochs = [secrets_of(1, epoch) for epoch in range(1, 12)]
    assert len(LogKeys(LOG_ID, epochs).alts(TOKEN, b"value")) == 8
    assert LogKeys(LOG_ID, [*epochs, secrets_of(2, 12)]).alts(TOKEN, b"value") == ()


def test_keys_of_our_own_space_are_none_of_the_users() -> None:
    sealed = EpochKeys(LOG_ID, secrets_of()).keys.seal(NO_TOKEN, b"\x01position")
    with pytest.raises(UnsealError):
        KEYS.open_key(sealed)


def test_no_secret_is_printed() -> None:
    secrets = secrets_of()
    shown = repr([secrets, KEYS, Sealer(Kind.VALUE, b"s" * 32, b"e" * 32)])
    for secret in (secrets.generation_secret, secrets.epoch_secret, b"ssss", b"eeee"):
        assert repr(secret)[2:20] not in shown
        assert secret.hex() not in shown


@settings(max_examples=20)
@given(st.binary(max_size=64), st.binary(max_size=64))
def test_kdf_separates_label_and_context(label: bytes, context: bytes) -> None:
    text = label.hex()
    assert kdf(bytes(32), text, context) == kdf(bytes(32), text, context)
    assert kdf(bytes(32), text, context) != kdf(bytes(32), text + "0", context)
    assert kdf(bytes(32), text, context) != kdf(bytes(32), text, context + b"\x00")
