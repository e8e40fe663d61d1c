"""What a master key gives: an identity, its tokens of log names, and boxes for log secrets.

Owns the derivation of every key that is not a log's, and the wraps that carry a log's
secrets to a member. No object here shows a secret when printed. Draws no random bytes and
reads no clock.
"""

import base64
from dataclasses import dataclass, field
from hashlib import blake2b

import nacl.bindings
import nacl.exceptions
from indelible_protocol.encoding import Reader, u16, u32
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import LogId, NameToken, PublicKey
from indelible_protocol.records import SUITE, Card
from indelible_protocol.signing import CARD_CONTEXT, sign

from indelible.errors import UnsealError, VerificationError
from indelible.sealing import Kind, LogSecrets, Sealer, kdf

MASTER_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A person's or machine's keys. `pk_sign` is what others know it by."""

    pk_sign: PublicKey
    pk_box: bytes
    secret_sign_key: bytes = field(repr=False)
    secret_box_key: bytes = field(repr=False)
    _name_key: bytes = field(repr=False)
    _names: Sealer = field(repr=False)

    @classmethod
    def from_master_key(cls, master_key: bytes) -> "Identity":
        seed = kdf(master_key, "id/seed")
        pk_sign, secret_sign_key = nacl.bindings.crypto_sign_seed_keypair(kdf(seed, "id/sign"))
        secret_box_key = kdf(seed, "id/box")
        keyring_key = kdf(seed, "id/keyring")
        return cls(
            pk_sign=PublicKey(pk_sign),
            pk_box=nacl.bindings.crypto_scalarmult_base(secret_box_key),
            secret_sign_key=secret_sign_key,
            secret_box_key=secret_box_key,
            _name_key=kdf(seed, "id/logname"),
            _names=Sealer(Kind.NAME, kdf(keyring_key, "name-siv"), kdf(keyring_key, "name-enc")),
        )

    def name_token(self, name: bytes) -> NameToken:
        """What the service knows a log's name by; needs this identity to be guessed."""
        return NameToken(kdf(self._name_key, "logname", name))

    def seal_name(self, name: bytes) -> bytes:
        return self._names.seal(self.name_token(name), name)

    def open_name(self, token: bytes, name_ct: bytes) -> bytes:
        """
        Raises:
            UnsealError: sealed by another identity, altered, or under another token.
        """
        return self._names.open(token, name_ct)

    def card(self, *, time_ms: int, name: bytes = b"") -> Card:
        """This identity's public keys, signed by itself."""
        unsigned = Card(pk_sign=self.pk_sign, pk_box=self.pk_box, time_ms=time_ms, name=name)
        signature = sign(CARD_CONTEXT + unsigned.core(), self.secret_sign_key)
        return Card(
            pk_sign=self.pk_sign,
            pk_box=self.pk_box,
            time_ms=time_ms,
            name=name,
            signature=signature,
        )


def wrap(log_id: LogId, secrets: LogSecrets, member: Card) -> bytes:
    """A sealed box of `secrets` for `member`: 226 bytes.

    Anyone could have sealed it, so it counts only inside a signed record.
    """
    payload = _wrap_context(log_id, secrets.generation, secrets.epoch, member)
    payload += secrets.generation_secret + secrets.epoch_secret
    return nacl.bindings.crypto_box_seal(payload, member.pk_box)


def unwrap(
    box: bytes,
    identity: Identity,
    *,
    log_id: LogId,
    generation: int,
    epoch: int,
    commitment: bytes,
) -> LogSecrets:
    """The secrets that `box` carries to `identity`, checked to be this log's and epoch's.

    Raises:
        UnsealError: the box is not for this identity, or was altered.
        VerificationError: it carries another log's, epoch's or member's secrets, or others
            than those that the record commits to.
    """
    try:
        payload = nacl.bindings.crypto_box_seal_open(box, identity.pk_box, identity.secret_box_key)
    except (nacl.exceptions.CryptoError, nacl.exceptions.TypeError) as error:
        raise UnsealError("the log's secrets are not wrapped for this profile's key") from error
    reader = Reader(payload, "wrap")
    try:
        reader.constant(_wrap_context(log_id, generation, epoch, identity), "context")
        secrets = LogSecrets(
            generation=generation,
            epoch=epoch,
            generation_secret=reader.take(32),
            epoch_secret=reader.take(32),
        )
        reader.end()
    except ProtocolError as error:
        raise VerificationError(
            "the wrapped secrets belong to another log, epoch or member", evidence={"wrap": box}
        ) from error
    if secrets.commitment(log_id) != commitment:
        raise VerificationError(
            "the wrapped secrets are not those that the log's record commits to",
            evidence={"wrap": box, "key_commitment": commitment},
        )
    return secrets


def _wrap_context(log_id: LogId, generation: int, epoch: int, member: Card | Identity) -> bytes:
    return b"".join(
        (
            b"indlwrap",
            u16(SUITE),
            log_id,
            u32(generation),
            u32(epoch),
            member.pk_sign,
            member.pk_box,
        )
    )


def original_name(master_key: bytes, name: bytes) -> bytes:
    """What the original library calls a log of this name: base64 of its secret box."""
    nonce = blake2b(name + master_key, digest_size=nacl.bindings.crypto_secretbox_NONCEBYTES)
    box = nacl.bindings.crypto_secretbox(name, nonce.digest(), master_key)
    return base64.b64encode(nonce.digest() + box)
