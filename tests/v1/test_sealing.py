"""The drop-in's ciphertexts are the published library's, byte for byte."""

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from indelible.v1 import crypto
from nacl.exceptions import CryptoError

from tests.v1.libraries import Library

VECTORS = Path(__file__).parents[1] / "vectors" / "v1_sealing.json"
ALPHABETS = ("abc", "äöüß", "漢字", "🜁🜂", "\x00\x01\n\"'\\", "\u2028\ud7ff")
CASES = 250


def test_vectors_of_the_published_library_come_out_of_ours(ours: Library) -> None:
    vectors = json.loads(VECTORS.read_text())
    assert ours.run("seal", stdin=[v["given"] for v in vectors]) == [v["sealed"] for v in vectors]


def test_both_libraries_seal_names_keys_and_values_alike(published: Library, ours: Library) -> None:
    rng = random.Random(2026)
    cases = [_case(rng) for _ in range(CASES)]
    theirs, our = published.run("seal", stdin=cases), ours.run("seal", stdin=cases)
    for case, expected, found in zip(cases, theirs, our, strict=True):
        assert found == expected, case


@pytest.mark.parametrize("size", [0, 1, 23])
def test_what_is_too_short_to_be_sealed_does_not_open(size: int) -> None:
    with pytest.raises(CryptoError, match="too short"):
        crypto.decrypt(bytes(32), bytes(size))


def test_changed_byte_or_another_key_does_not_open() -> None:
    sealed = crypto.encrypt(bytes(32), b"value")
    assert crypto.decrypt(bytes(32), sealed) == b"value"
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(CryptoError):
            crypto.decrypt(bytes(32), bytes(changed))
    with pytest.raises(CryptoError):
        crypto.decrypt(b"\x01" * 32, sealed)


def _case(rng: random.Random) -> dict[str, Any]:
    encrypt = rng.random() < 0.8
    modes = ["string", "json", "binary"] + ["raw"] * (not encrypt)
    key_mode, value_mode = rng.choice(modes), rng.choice(modes)
    name_mode = rng.choice(["string", "stringlist", "raw"])
    name: Any = _text(rng)
    if name_mode == "stringlist":
        name = [_text(rng) for _ in range(rng.randrange(4))]
    elif name_mode == "raw" and encrypt:
        name = _binary(rng)
    return {
        "master_key": base64.b64encode(rng.randbytes(32)).decode(),
        "name": name,
        "name_mode": name_mode,
        "key_mode": key_mode,
        "value_mode": value_mode,
        "encrypt": encrypt,
        "keys": [_MAKE[key_mode](rng) for _ in range(4)],
        "values": [_MAKE[value_mode](rng) for _ in range(4)],
    }


def _text(rng: random.Random) -> str:
    alphabet = "".join(rng.sample(ALPHABETS, 2))
    return "".join(rng.choices(alphabet, k=rng.choice([0, 1, 7, 100])))


def _binary(rng: random.Random) -> dict[str, str]:
    data = rng.randbytes(rng.choice([0, 1, 24, 1000]))
    return {"base64": base64.b64encode(data).decode()}


def _raw(rng: random.Random) -> str:
    return _binary(rng)["base64"]


def _json(rng: random.Random, depth: int = 0) -> Any:
    scalars: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.randrange(-(2**70), 2**70),
        rng.random,
        lambda: _text(rng),
    ]
    if depth < 2 and rng.random() < 0.6:
        items = [_json(rng, depth + 1) for _ in range(rng.randrange(4))]
        # Keys in any order, for the order decides the original's ciphertext.
        return items if rng.random() < 0.5 else {_text(rng): item for item in items}
    return rng.choice(scalars)()


_MAKE: dict[str, Callable[[random.Random], Any]] = {
    "string": _text,
    "json": _json,
    "binary": _binary,
    "raw": _raw,
}
