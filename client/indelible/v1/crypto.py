"""The original library's sealing, byte for byte, so that both can read one log.

For logs that exist already. Equal values look equal under every key of a log, ciphertexts
can be moved between keys, and the key derivation is nominal; `indelible.Client` has none of
these weaknesses.
"""

from base64 import standard_b64encode
from hashlib import blake2b

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox

encrypt_nonce_len = 24
derive_key_salt_len = 16
key_len = 32

_OPERATIONS = 1
_MEMORY_BYTES = 8_192


def derive_key(master_key: bytes, context: bytes) -> bytes:
    """The 32-byte key of the log whose encoded name is `context`, by argon2id."""
    password = standard_b64encode(master_key)
    salt = nonce(context + master_key, derive_key_salt_len)
    return argon2id.kdf(key_len, password, salt, opslimit=_OPERATIONS, memlimit=_MEMORY_BYTES)


def nonce(message: bytes, nonce_len: int = derive_key_salt_len) -> bytes:
    """`nonce_len` bytes of unkeyed BLAKE2b."""
    return blake2b(message, digest_size=nonce_len).digest()


def encrypt(key: bytes, message: bytes) -> bytes:
    """24 bytes of nonce, then the XSalsa20-Poly1305 box.

    The nonce is a hash of message and key: equal messages give equal ciphertexts.
    """
    return bytes(SecretBox(key).encrypt(message, nonce(message + key, encrypt_nonce_len)))


def decrypt(key: bytes, message: bytes) -> bytes:
    """
    Raises:
        CryptoError: of `nacl`, as in the original: another key, or changed bytes.
    """
    if len(message) < encrypt_nonce_len:
        raise CryptoError(f"{len(message)} bytes are too short to be a sealed message")
    return SecretBox(key).decrypt(message)
