"""Signatures, and the edge cases on which verifiers of Ed25519 differ.

The points are derived here from the curve's own definition (RFC 8032, 5.1), so that the
verdicts pinned below say what kind of input they are about.
"""

from hashlib import sha512

import nacl.bindings
import pytest
from indelible_protocol import records
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import LogId, PublicKey
from indelible_protocol.signing import (
    COMMIT_CONTEXT,
    SignedCommit,
    sign,
    sign_commit,
    verify,
    verify_card,
    verify_commit,
)

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P)
    return x % P, y % P


def times(factor: int, point: Point) -> Point:
    result = NEUTRAL
    while factor:
        if factor & 1:
            result = add(result, point)
        point, factor = add(point, point), factor >> 1
    return result


def x_of(y: int, sign_bit: int) -> int | None:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    return P - x if x & 1 != sign_bit else x


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def basepoint() -> Point:
    y = 4 * pow(5, -1, P) % P
    x = x_of(y, 0)
    assert x is not None
    return x, y


B = basepoint()


def torsion() -> list[Point]:
    """The eight points of small order."""
    y = 2
    while True:
        x = x_of(y, 0)
        if x is not None:
            point = times(L, (x, y))
            if times(4, point) != NEUTRAL:
                return [times(n, point) for n in range(8)]
        y += 1


TORSION = torsion()


def challenge(r: bytes, key: bytes, message: bytes) -> int:
    return int.from_bytes(sha512(r + key + message).digest(), "little") % L


def signed(message: bytes, *, key_torsion: Point, r_torsion: Point) -> tuple[bytes, bytes]:
    """(public key, signature) with components of small order mixed in."""
    secret, nonce = 0x1234567, 0x7654321
    key = encoded(add(times(secret, B), key_torsion))
    r = encoded(add(times(nonce, B), r_torsion))
    s = (nonce + challenge(r, key, message) * secret) % L
    return key, r + s.to_bytes(32, "little")


def test_the_arithmetic_here_is_that_of_the_library() -> None:
    key, secret_key = nacl.bindings.crypto_sign_seed_keypair(bytes(32))
    digest = sha512(bytes(32)).digest()
    scalar = int.from_bytes(digest[:32], "little") & ~7 & (1 << 254) - 1 | 1 << 254
    assert encoded(times(scalar, B)) == key
    assert times(L, B) == NEUTRAL
    assert len(set(TORSION)) == 8
    key, signature = signed(b"message", key_torsion=NEUTRAL, r_torsion=NEUTRAL)
    assert verify(b"message", signature, key)
    assert verify(b"message", sign(b"message", secret_key), secret_key[32:])


def test_s_must_be_reduced() -> None:
    key, signature = signed(b"message", key_torsion=NEUTRAL, r_torsion=NEUTRAL)
    s = int.from_bytes(signature[32:], "little")
    for multiple in range(1, 15):
        larger = s + multiple * L
        if larger < 2**256:
            assert not verify(b"message", signature[:32] + larger.to_bytes(32, "little"), key)


def test_keys_and_commitments_of_small_order_are_refused() -> None:
    """Each of these satisfies the equation with s = 0 for about one message in eight."""
    zero = bytes(32)
    for point in TORSION:
        for y in {point[1], point[1] + P}:
            if y >= 2**255:
                continue
            for sign_bit in (0, 1):
                small = (y | sign_bit << 255).to_bytes(32, "little")
                for n in range(40):
                    message = b"message %d" % n
                    assert not verify(message, encoded(NEUTRAL) + zero, small)
                    assert not verify(message, small + zero, small)
    key = encoded(B)
    for point in TORSION:
        s = challenge(encoded(point), key, b"message").to_bytes(32, "little")
        assert not verify(b"message", encoded(point) + s, key)


def test_keys_that_are_not_canonical_are_refused() -> None:
    """The encodings of y from p to 2^255 − 1, on the curve or not."""
    _, signature = signed(b"message", key_torsion=NEUTRAL, r_torsion=NEUTRAL)
    for y in range(P, 2**255):
        for sign_bit in (0, 1):
            key = (y | sign_bit << 255).to_bytes(32, "little")
            assert not verify(b"message", signature, key)
            assert not verify(b"message", key + bytes(32), encoded(B))


@pytest.mark.parametrize("n", range(1, 8))
def test_components_of_small_order_follow_the_cofactorless_equation(n: int) -> None:
    """A key with a torsion component verifies exactly when the challenge cancels it."""
    accepted = 0
    for count in range(24):
        message = b"message %d" % count
        key, signature = signed(message, key_torsion=TORSION[n], r_torsion=NEUTRAL)
        h = challenge(signature[:32], key, message)
        cancels = times(h, TORSION[n]) == NEUTRAL
        assert verify(message, signature, key) is cancels
        accepted += cancels
        # Mixed into R instead, nothing cancels it.
        key, signature = signed(message, key_torsion=NEUTRAL, r_torsion=TORSION[n])
        assert not verify(message, signature, key)
    assert accepted < 24


def test_every_bit_of_a_signature_counts() -> None:
    key, secret_key = nacl.bindings.crypto_sign_seed_keypair(bytes(range(32)))
    signature = sign(b"message", secret_key)
    for bit in range(512):
        altered = bytearray(signature)
        altered[bit // 8] ^= 1 << bit % 8
        assert not verify(b"message", bytes(altered), key)
    for length in (0, 1, 63):
        assert not verify(b"message", signature[:length], key)
    assert not verify(b"message", signature + b"\x00", key)
    assert not verify(b"message", signature, key[:31])
    assert not verify(b"message", signature, b"")


def test_a_signature_in_one_context_is_none_in_another() -> None:
    key, secret_key = nacl.bindings.crypto_sign_seed_keypair(bytes(range(32)))
    header = records.Header(
        kind=records.CommitKind.DATA,
        log_id=LogId(bytes(32)),
        writer=PublicKey(key),
        command_count=1,
        body_root=bytes(32),
        body_bytes=0,
    )
    good = sign_commit(header, b"", secret_key)
    verify_commit(good, header)
    bare = SignedCommit(header=good.header, signature=sign(good.header, secret_key), body=b"")
    with pytest.raises(ProtocolError) as caught:
        verify_commit(bare, header)
    assert caught.value.code is ErrorCode.BAD_SIGNATURE
    card = records.Card(pk_sign=PublicKey(key), pk_box=bytes(32), time_ms=0, name=b"")
    wrong = records.Card(
        pk_sign=PublicKey(key),
        pk_box=bytes(32),
        time_ms=0,
        name=b"",
        signature=sign(COMMIT_CONTEXT + card.core(), secret_key),
    )
    with pytest.raises(ProtocolError):
        verify_card(wrong)
