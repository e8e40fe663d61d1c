"""Sealing of keys, values and the rest: deterministic, committing, bound to its place.

Equal plaintexts at one place give equal ciphertexts, so a server without keys can tell that
a value is the same; at any other place (another key, log or epoch) the ciphertext is another
one and does not open. Owns padding, the cipher and the derivation of a log's keys; knows
nothing of what the plaintexts mean or of where the secrets come from.

```
ctx  = "indlentr" ‖ u16 suite ‖ u8 kind ‖ log_id[32] ‖ u32 generation ‖ u32 epoch ‖ token[32]
P    = u32 len(pt) ‖ pt ‖ 00…      to padme(len + 4)
SIV  = BLAKE2b-256(key = K_siv, person = "indelible/siv/1", ctx ‖ P)
ct   = SIV ‖ XChaCha20-Poly1305(K_enc, nonce = SIV[0:24], aad = ctx ‖ SIV[24:32], P)
```
"""

import hmac
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b

import nacl.exceptions
from indelible_protocol import limits
from indelible_protocol.commands import MIN_SEALED_BYTES
from indelible_protocol.encoding import u8, u16, u32, u64
from indelible_protocol.ids import ChainId, KeyToken, LogId, ValueId
from indelible_protocol.records import SUITE
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt as aead_open,
)
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_encrypt as aead_seal,
)

from indelible.errors import UnsealError

SIV_BYTES = 32
NO_TOKEN = bytes(32)
NO_LOG = LogId(bytes(32))
SECRET_BYTES = 32

_PERSON = b"indelible/siv/1"
_MIN_PADDED = 32
_KEPT_LENGTHS = 4_096


class Kind(IntEnum):
    """What a ciphertext is of; part of its context, so none passes for another."""

    KEY = 1
    VALUE = 2
    NAME = 3
    MEMO = 4
    META = 5


class Space(IntEnum):
    """Whose keys: the first byte of a key's plaintext."""

    USER = 0
    OURS = 1


_USER = u8(Space.USER)


def kdf(prk: bytes, label: str, context: bytes = b"") -> bytes:
    """32 bytes for one purpose.

    Source: RFC 5869, 2.3 (HKDF-Expand with SHA-256, one block; `prk` is uniform already).
    """
    info = b"indelible/v1/" + label.encode() + b"\x00" + context + b"\x01"
    return hmac.digest(prk, info, "sha256")


@lru_cache(_KEPT_LENGTHS)
def padme(length: int) -> int:
    """The size that `length` bytes are padded to: at most 12 % more, and few of them.

    Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
    Communication with PURBs" (2019), algorithm 1; with 32 as the least.
    """
    if length <= _MIN_PADDED:
        return _MIN_PADDED
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask


def pad(plaintext: bytes) -> bytes:
    length = len(plaintext)
    return (u32(length) + plaintext).ljust(padme(length + 4), b"\x00")


def _unpad(padded: bytes) -> bytes | None:
    """None unless `pad` made it."""
    length = int.from_bytes(padded[:4], "big")
    if padme(length + 4) != len(padded) or padded.count(0, 4 + length) != len(padded) - 4 - length:
        return None
    return padded[4 : 4 + length]


class Sealer:
    """Seals one kind of plaintext under one pair of keys."""

    __slots__ = ("_encryption_key", "_place", "_siv_of_place")

    def __init__(
        self,
        kind: Kind,
        siv_key: bytes,
        encryption_key: bytes,
        *,
        log_id: LogId = NO_LOG,
        generation: int = 0,
        epoch: int = 0,
    ) -> None:
        self._encryption_key = encryption_key
        self._place = b"".join(
            (b"indlentr", u16(SUITE), u8(kind), log_id, u32(generation), u32(epoch))
        )
        self._siv_of_place = blake2b(
            self._place, digest_size=SIV_BYTES, key=siv_key, person=_PERSON
        )

    def siv(self, token: bytes, plaintext: bytes) -> bytes:
        """The first 32 bytes of `seal`, without the rest."""
        return self._siv(token, pad(plaintext))

    def seal(self, token: bytes, plaintext: bytes) -> bytes:
        padded = pad(plaintext)
        siv = self._siv(token, padded)
        context = self._place + token + siv[24:]
        return siv + aead_seal(padded, context, siv[:24], self._encryption_key)

    def open(self, token: bytes, sealed: bytes) -> bytes:
        """
        Raises:
            UnsealError: anything is not as `seal` made it; which thing is not told.
        """
        if len(sealed) >= MIN_SEALED_BYTES:
            siv = sealed[:SIV_BYTES]
            padded = self._decrypt(token, siv, sealed[SIV_BYTES:])
            if padded is not None and hmac.compare_digest(siv, self._siv(token, padded)):
                plaintext = _unpad(padded)
                if plaintext is not None:
                    return plaintext
        raise UnsealError("the bytes do not open with this key: another key, or altered bytes")

    def _siv(self, token: bytes, padded: bytes) -> bytes:
        hashing = self._siv_of_place.copy()
        hashing.update(token + padded)
        return hashing.digest()

    def _decrypt(self, token: bytes, siv: bytes, box: bytes) -> bytes | None:
        context = self._place + token + siv[24:]
        try:
            return aead_open(box, context, siv[:24], self._encryption_key)
        except nacl.exceptions.CryptoError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSecrets:
    """What members of a log hold: the secrets of one epoch, 32 random bytes each."""

    generation: int
    epoch: int
    generation_secret: bytes = field(repr=False)
    epoch_secret: bytes = field(repr=False)

    def commitment(self, log_id: LogId) -> bytes:
        """`kc`: public, and of these secrets alone."""
        context = log_id + u32(self.generation) + u32(self.epoch)
        return kdf(self.epoch_secret, "log/commit", context)


class EpochKeys:
    """The sealers of one epoch of a log."""

    __slots__ = ("epoch", "generation", "keys", "memos", "metas", "values")

    def __init__(self, log_id: LogId, secrets: LogSecrets) -> None:
        self.generation, self.epoch = secrets.generation, secrets.epoch
        generation_context = log_id + u32(self.generation)
        epoch_context = generation_context + u32(self.epoch)
        self.keys = Sealer(
            Kind.KEY,
            kdf(secrets.generation_secret, "log/key-siv", generation_context),
            kdf(secrets.generation_secret, "log/key-enc", generation_context),
            log_id=log_id,
            generation=self.generation,
        )
        siv_key = kdf(secrets.epoch_secret, "log/val-siv", epoch_context)
        encryption_key = kdf(secrets.epoch_secret, "log/val-enc", epoch_context)
        self.values, self.memos, self.metas = (
            Sealer(
                kind,
                siv_key,
                encryption_key,
                log_id=log_id,
                generation=self.generation,
                epoch=self.epoch,
            )
            for kind in (Kind.VALUE, Kind.MEMO, Kind.META)
        )


class LogKeys:
    """Every epoch of a log that its reader holds. Seals under the last, opens under any."""

    __slots__ = ("_current", "_epochs", "_keys", "_memos", "_metas", "_values")

    def __init__(self, log_id: LogId, secrets: Sequence[LogSecrets]) -> None:
        """`secrets` oldest first, at least one."""
        self._epochs = tuple(EpochKeys(log_id, each) for each in reversed(secrets))
        self._current = self._epochs[0]
        self._keys = tuple(epoch.keys for epoch in self._epochs)
        self._values = tuple(epoch.values for epoch in self._epochs)
        self._memos = tuple(epoch.memos for epoch in self._epochs)
        self._metas = tuple(epoch.metas for epoch in self._epochs)

    @property
    def generation(self) -> int:
        return self._current.generation

    @property
    def epoch(self) -> int:
        return self._current.epoch

    def token(self, key: bytes) -> KeyToken:
        """What the service knows a key by: the SIV of its sealed name."""
        return KeyToken(self._current.keys.siv(NO_TOKEN, _USER + key))

    def seal_key(self, key: bytes) -> bytes:
        """Begins with the key's token."""
        return self._current.keys.seal(NO_TOKEN, _USER + key)

    def seal_value(self, token: bytes, value: bytes) -> bytes:
        """Begins with the value's id."""
        return self._current.values.seal(token, value)

    def value_id(self, token: bytes, value: bytes) -> ValueId:
        return ValueId(self._current.values.siv(token, value))

    def alts(self, token: bytes, value: bytes) -> tuple[bytes, ...]:
        """Ids that the same value has under earlier epochs of the current generation."""
        if len(self._epochs) == 1:
            return ()
        return tuple(
            earlier.values.siv(token, value)
            for earlier in self._epochs[1 : 1 + limits.MAX_ALTS]
            if earlier.generation == self.generation
        )

    def seal_memo(self, chain: ChainId, seq: int, memo: bytes) -> bytes:
        return self._current.memos.seal(_memo_token(chain, seq), memo)

    def seal_meta(self, meta: bytes) -> bytes:
        return self._current.metas.seal(NO_TOKEN, meta)

    def open_key(self, sealed: bytes) -> bytes:
        """
        Raises:
            UnsealError: another key, altered bytes, or a key that is none of the user's.
        """
        plaintext = _open(self._keys, NO_TOKEN, sealed)
        if plaintext[:1] != _USER:
            raise UnsealError("the sealed key is not one of the user's")
        return plaintext[1:]

    def open_value(self, token: bytes, sealed: bytes) -> bytes:
        return _open(self._values, token, sealed)

    def open_memo(self, chain: ChainId, seq: int, sealed: bytes) -> bytes:
        return _open(self._memos, _memo_token(chain, seq), sealed)

    def open_meta(self, sealed: bytes) -> bytes:
        return _open(self._metas, NO_TOKEN, sealed)


def _open(sealers: Sequence[Sealer], token: bytes, sealed: bytes) -> bytes:
    """A ciphertext does not tell its epoch: the newest is tried first, the oldest last."""
    for sealer in sealers[:-1]:
        with suppress(UnsealError):
            return sealer.open(token, sealed)
    return sealers[-1].open(token, sealed)


def _memo_token(chain: ChainId, seq: int) -> bytes:
    return chain + u64(seq) + bytes(8)
