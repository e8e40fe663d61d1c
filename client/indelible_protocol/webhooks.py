"""Webhook signatures as Standard Webhooks 1.0 lays them out: keys, what is signed, headers.

Spells and reads keys, signs, and checks one signature or a header of several. Makes no keys
and judges no times; knows nothing of what a body says.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from enum import Enum

import nacl.bindings

from indelible_protocol import signing
from indelible_protocol.errors import ProtocolError

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

UPDATED = "log.updated"
DELETED = "log.deleted"
TEST = "webhook.test"
CHALLENGE = "webhook.challenge"

SECRET_BYTES = 32  # of those that are made; others may have as many as MAX_SECRET_BYTES
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
SEED_BYTES = 32
MAX_SIGNATURES = 16  # of one header; each costs a check for every key


class Kind(Enum):
    """What a key is for; the value is what its spelling begins with."""

    SHARED = "whsec_"  # of both sides, HMAC-SHA256
    SIGNING = "whsk_"  # the sender's, Ed25519
    PUBLIC = "whpk_"  # the receiver's


_SIZES = {
    Kind.SHARED: range(MIN_SECRET_BYTES, MAX_SECRET_BYTES + 1),
    Kind.SIGNING: range(SEED_BYTES, SEED_BYTES + 1),
    Kind.PUBLIC: range(SEED_BYTES, SEED_BYTES + 1),
}


@dataclass(frozen=True, slots=True)
class Key:
    """`data` is the secret, the seed of the signing key, or the public key."""

    kind: Kind
    data: bytes = field(repr=False)

    @classmethod
    def read(cls, text: str) -> "Key":
        """
        Raises:
            ProtocolError: no key; its words never quote it.
        """
        kind = next((kind for kind in Kind if text.startswith(kind.value)), None)
        if kind is None:
            raise ProtocolError("a webhook's key begins with whsec_, whsk_ or whpk_")
        spelled = text.removeprefix(kind.value)
        try:
            data = base64.b64decode(spelled + "=" * (-len(spelled) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ProtocolError(f"a key that begins with {kind.value} is no base64") from None
        if len(data) not in _SIZES[kind]:
            raise ProtocolError(f"a key that begins with {kind.value} has {len(data)} bytes")
        return cls(kind, data)

    def spelled(self) -> str:
        return self.kind.value + base64.b64encode(self.data).decode()

    def public(self) -> "Key":
        """What the receivers of a signing key's deliveries check them with."""
        assert self.kind is Kind.SIGNING, "only a signing key has a public one"
        return Key(Kind.PUBLIC, nacl.bindings.crypto_sign_seed_keypair(self.data)[0])

    @property
    def scheme(self) -> str:
        return "v1" if self.kind is Kind.SHARED else "v1a"

    def sign(self, text: bytes) -> str:
        """`v1,…` or `v1a,…`: one member of the header."""
        if self.kind is Kind.SHARED:
            signature = hmac.digest(self.data, text, hashlib.sha256)
        else:
            assert self.kind is Kind.SIGNING, "a public key signs nothing"
            _, secret_key = nacl.bindings.crypto_sign_seed_keypair(self.data)
            signature = signing.sign(text, secret_key)
        return f"{self.scheme},{base64.b64encode(signature).decode()}"

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's, of `text`."""
        if self.kind is Kind.SHARED:
            return hmac.compare_digest(hmac.digest(self.data, text, hashlib.sha256), signature)
        public = self if self.kind is Kind.PUBLIC else self.public()
        return signing.verify(text, signature, public.data)


def signed_text(delivery_id: str, timestamp_seconds: int, body: bytes) -> bytes:
    return f"{delivery_id}.{timestamp_seconds}.".encode() + body


def headers(
    keys: "list[Key]", delivery_id: str, timestamp_seconds: int, body: bytes
) -> dict[str, str]:
    """The three headers of an attempt, signed by every key."""
    text = signed_text(delivery_id, timestamp_seconds, body)
    return {
        ID_HEADER: delivery_id,
        TIMESTAMP_HEADER: str(timestamp_seconds),
        SIGNATURE_HEADER: " ".join(key.sign(text) for key in keys),
    }


def signatures(header: str) -> list[tuple[str, bytes]]:
    """Scheme and signature of each member of the header that is one; others are left out.

    Raises:
        ProtocolError: more than MAX_SIGNATURES members.
    """
    members = header.split(" ")
    if len(members) > MAX_SIGNATURES:
        raise ProtocolError(f"{SIGNATURE_HEADER} has more than {MAX_SIGNATURES} signatures")
    found = []
    for member in members:
        scheme, _, spelled = member.partition(",")
        try:
            found.append((scheme, base64.b64decode(spelled, validate=True)))
        except (binascii.Error, ValueError):
            continue
    return found
