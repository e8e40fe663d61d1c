"""What the client's own work costs beside the bare cryptography in it (G10).

Runs in a worker process: `our_costs` seals, opens and signs entries of 256 bytes;
`blocking_calls` and `async_calls` make the same calls through the blocking client and its
asynchronous twin.
"""

import base64
import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from statistics import median

import indelible
import nacl.bindings
from indelible import Profile, Upsert
from indelible.codec import Codec
from indelible.modes import Mode
from indelible.sealing import LogKeys, LogSecrets, padme
from indelible_protocol import messages
from indelible_protocol.commands import Command
from indelible_protocol.ids import ChainId, LogId

from tests.benchmarks.figures import Row, at_least, at_most, check
from tests.benchmarks.stage import Scale, stage
from tests.benchmarks.workers import Worker
from tests.support.writers import SealedWriter

VALUE_BYTES = 256
KEY_BYTES = 16
BATCH = 100
CRYPTOGRAPHY_SECONDS = 1.5
KEY_PADDED = padme(KEY_BYTES + 5)
VALUE_PADDED = padme(VALUE_BYTES + 4)
CONTEXT_BYTES = 83  # of "indlentr" … token, as the sealing of keys and values has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Entries per second of processor time."""

    seal: float
    open: float
    commit: float


def bare_costs(seconds: float) -> Costs:
    """The cryptography alone, on bytes of the same lengths."""
    key = os.urandom(32)
    _, signing = nacl.bindings.crypto_sign_seed_keypair(os.urandom(32))
    context = os.urandom(CONTEXT_BYTES)
    plains = [os.urandom(KEY_PADDED), os.urandom(VALUE_PADDED)]
    header = os.urandom(270)
    encrypt = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt
    decrypt = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt
    nonce = os.urandom(24)
    boxes = [encrypt(plain, context, nonce, key) for plain in plains]

    def seal() -> None:
        for plain in plains:
            blake2b(context + plain, digest_size=32, key=key).digest()
            encrypt(plain, context, nonce, key)

    def open_() -> None:
        for box, plain in zip(boxes, plains, strict=True):
            decrypt(box, context, nonce, key)
            blake2b(context + plain, digest_size=32, key=key).digest()

    def commit() -> None:
        seal()
        nacl.bindings.crypto_sign(header, signing)

    return Costs(
        seal=speed(seal, seconds), open=speed(open_, seconds), commit=speed(commit, seconds)
    )


def our_costs(seconds: float) -> Costs:
    """What `log.update` does on its way to the socket, and a diff on its way to the user.

    `commit` is an entry sealed, laid out and signed: the protocol's own functions, with which
    the tests' writer makes commits as the client does.
    """
    writer = SealedWriter(os.urandom(32), max_lag=1)
    secrets = LogSecrets(
        generation=1,
        epoch=1,
        generation_secret=os.urandom(32),
        epoch_secret=os.urandom(32),
    )
    codec = Codec(LogKeys(LogId(writer.log_id), [secrets]), Mode.BINARY, Mode.BINARY)
    asked = Upsert(os.urandom(KEY_BYTES), os.urandom(VALUE_BYTES))
    sealed = codec.sealed(asked)
    stored = messages.Entry(
        key=sealed.token, sealed_key=sealed.key_ct, value=sealed.value, version=1
    )
    opened = codec.entry(stored)
    check((opened.key, opened.value) == (asked.key, asked.value), "an entry opens as another")
    check(len(sealed.key_ct) == 48 + KEY_PADDED, "the floor seals a key of another length")
    check(len(sealed.value) == 48 + VALUE_PADDED, "the floor seals a value of another length")
    chain = ChainId(os.urandom(16))

    def commit() -> None:
        commands: list[Command] = [codec.sealed(asked)]
        writer.commit(commands, chain=chain, seq=1, seen_size=1)

    return Costs(
        seal=speed(lambda: codec.sealed(asked), seconds),
        open=speed(lambda: codec.entry(stored), seconds),
        commit=speed(commit, seconds),
    )


def speed(act: Callable[[], object], seconds: float) -> float:
    """How often `act` is done in a second of processor time."""
    gc.collect()
    began, ends = time.process_time(), time.perf_counter() + seconds
    count = 0
    while time.perf_counter() < ends:
        for _ in range(BATCH):
            act()
        count += BATCH
    return count / (time.process_time() - began)


async def async_calls(profile: Profile, count: int) -> float:
    """Processor time of this process per `log.get`, in seconds."""
    async with indelible.AsyncClient(profile) as client:
        log = await client.log("g10", create=True)
        await log.set("key", "value")
        began = time.process_time()
        for _ in range(count):
            check(await log.get("key") == "value", "another value was read")
        return (time.process_time() - began) / count


def blocking_calls(profile: Profile, count: int) -> float:
    """The same through the blocking client: both its threads are counted."""
    with indelible.Client(profile) as client:
        log = client.log("g10", create=True)
        log.set("key", "value")
        began = time.process_time()
        for _ in range(count):
            check(log.get("key") == "value", "another value was read")
        return (time.process_time() - began) / count


async def client(scale: Scale) -> list[Row]:
    return [*await _cryptography(scale.shorter(CRYPTOGRAPHY_SECONDS)), await _twins(scale)]


async def _cryptography(scale: Scale) -> list[Row]:
    seconds = scale.seconds / 6  # three things are timed in each sample, on both sides
    worker = await Worker.start()
    try:

        async def floor(number: int) -> Costs:
            costs: Costs = await worker.run(bare_costs, seconds)
            return costs

        async def ours(number: int) -> Costs:
            costs: Costs = await worker.run(our_costs, seconds)
            return costs

        pairs = await scale.in_turns("G10", floor, ours)
    finally:
        await worker.stop()
    floors = {
        "seal": "2 keyed BLAKE2b, 2 XChaCha20-Poly1305",
        "open": "2 keyed BLAKE2b, 2 XChaCha20-Poly1305",
        "commit": "the same and 1 Ed25519",
    }
    return [
        Row(
            goal_id="G10",
            what=f"{verb} an entry of 256 B, by the client's CPU",
            unit="per s",
            floor_name=floor_name,
            floor=[getattr(floor, verb) for floor, _ in pairs],
            ours=[getattr(ours, verb) for _, ours in pairs],
            goal=at_least(0.65),
        )
        for verb, floor_name in floors.items()
    ]


async def _twins(scale: Scale) -> Row:
    count = scale.of(400, 60)
    async with stage() as stand:
        profile = Profile(
            endpoint_url=stand.api.url,
            customer_id="bench",
            apikey=stand.apikey,
            master_key_base64=base64.b64encode(os.urandom(32)).decode(),
        )

        async def floor(number: int) -> float:
            took: float = await stand.worker.run(async_calls, profile, count)
            return took

        async def ours(number: int) -> float:
            took: float = await stand.worker.run(blocking_calls, profile, count)
            return took

        pairs = await scale.in_turns("G10, twins", floor, ours)
    return Row(
        goal_id="G10",
        what="a call of the blocking client, over its async twin's: CPU",
        unit="µs more",
        ours=[(blocking - twin) * 1e6 for twin, blocking in pairs],
        goal=at_most(100, of="ours"),
        beside={
            "async_cpu_us": median(twin for twin, _ in pairs) * 1e6,
            "blocking_cpu_us": median(blocking for _, blocking in pairs) * 1e6,
        },
    )
