"""A service that answers wrongly is found out, whatever it is about."""

import os
import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from indelible import (
    AsyncClient,
    AsyncLog,
    IndelibleError,
    OutcomeUnknownError,
    Remove,
    UnsealError,
    VerificationError,
)
from indelible.keyring import Identity, wrap
from indelible.sealing import LogSecrets
from indelible.transport import Request, Transport
from indelible_protocol import messages, paths, records
from indelible_protocol.ids import LogId
from msgspec.structs import replace

from tests.client.conftest import OpenClient, profile_of
from tests.client.double import Double
from tests.client.test_opening import records_in, resigned, rotated
from tests.support.service import Service

KEY = bytes(range(32))
ME = Identity.from_master_key(KEY)
LIE = (VerificationError, UnsealError)


@pytest.fixture
async def double(service: Service) -> AsyncIterator[Double]:
    async with Double(service.url) as double:
        yield double


@pytest.fixture
def client(open_client: OpenClient, service: Service, double: Double) -> AsyncClient:
    profile = profile_of(service, master_key=KEY, url=double.url)
    return open_client(profile, timeout_seconds=1.0)


@pytest.fixture
async def log(client: AsyncClient) -> AsyncLog:
    log = await client.log("config", create=True)
    await log.set_many({"a": "va", "b": "vb"})
    await log.set("a", "va2")
    await log.delete("b")
    return log


async def listed(items: Any) -> list[Any]:
    return [item async for item in items]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def in_genesis(part: str, at: int) -> Callable[[messages.Opened], messages.Opened]:
    def tamper(opened: messages.Opened) -> messages.Opened:
        setattr(opened.genesis, part, flipped(getattr(opened.genesis, part), at))
        return opened

    return tamper


def with_description(**changes: Any) -> Callable[[messages.Opened], messages.Opened]:
    def tamper(opened: messages.Opened) -> messages.Opened:
        for name, value in changes.items():
            setattr(opened.description, name, value)
        return opened

    return tamper


def rewrapped(opened: messages.Opened) -> messages.Opened:
    """The service's own secrets, wrapped to us; everything else is public."""
    secrets = LogSecrets(
        generation=1, epoch=1, generation_secret=os.urandom(32), epoch_secret=os.urandom(32)
    )
    first, meta, epoch, grant = [record.body for record in records_in(opened.genesis)]
    assert isinstance(epoch, records.Epoch)
    assert isinstance(grant, records.Grant)
    log_id = records.log_id_of(records_in(opened.genesis)[0].data[33:])
    box = wrap(log_id, secrets, grant.card)
    epoch = replace(epoch, key_commitment=secrets.commitment(log_id))
    theirs = Identity.from_master_key(os.urandom(32))
    signed = resigned(opened.genesis, [first, meta, epoch, replace(grant, wrap=box)], signer=theirs)
    opened.genesis = signed
    return opened


LIES: dict[str, Callable[[messages.Opened], Any]] = {
    "header": in_genesis("header", 100),
    "log_id in the header": in_genesis("header", 20),
    "signature": in_genesis("signature", 10),
    "genesis record": in_genesis("body", 120),
    "end of the body": in_genesis("body", -10),
    "log_id": with_description(log_id=bytes(32)),
    "a control commit withheld": with_description(ctl_seq=5),
    "secrets of its own": rewrapped,
    "no genesis at all": lambda opened: messages.Opened(
        description=opened.description,
        genesis=messages.Commit(header=b"", signature=b"", body=b""),
        control=[],
    ),
    "the genesis again as a control commit": lambda opened: messages.Opened(
        description=opened.description, genesis=opened.genesis, control=[opened.genesis]
    ),
    "another message": lambda opened: opened.description,
}


@pytest.mark.parametrize("lie", list(LIES))
async def test_a_tampered_log_does_not_open(
    client: AsyncClient, log: AsyncLog, double: Double, lie: str
) -> None:
    double.tamper(messages.Opened, LIES[lie])
    with pytest.raises(VerificationError) as caught:
        await client.log("config")
    assert caught.value.evidence
    with pytest.raises(VerificationError):
        await client.log("config", create=True)
    pickle.loads(pickle.dumps(caught.value))
    double.honest()
    assert (await client.log("config")).log_id == log.log_id


async def test_a_name_answered_with_another_log_of_ours_is_refused(
    client: AsyncClient, log: AsyncLog, double: Double
) -> None:
    await client.log("other", create=True)
    double.tamper(messages.Opened, lambda opened: opened)
    await client.log("other")
    other = double.answered[-1]
    double.tamper(messages.Opened, lambda opened: other)
    with pytest.raises(VerificationError, match="another name"):
        await client.log("config")


async def test_a_name_answered_with_the_log_of_another_key_is_refused(
    client: AsyncClient, log: AsyncLog, double: Double, open_client: OpenClient, service: Service
) -> None:
    """Also what a wrong master key meets, if the service gives it the log all the same."""
    theirs = open_client(profile_of(service, url=double.url))
    double.tamper(messages.Opened, lambda opened: opened)
    await theirs.log("config", create=True)
    their_log = double.answered[-1]
    double.tamper(messages.Opened, lambda opened: their_log)
    with pytest.raises(VerificationError, match="signed by another identity"):
        await client.log("config")


async def test_creating_is_checked_as_opening_is(client: AsyncClient, double: Double) -> None:
    """The service may not slip in a log that it founded itself."""
    double.tamper(messages.Opened, rewrapped)
    with pytest.raises(VerificationError):
        await client.log("new", create=True)


def swapped_values(diff: messages.Diff) -> messages.Diff:
    first, second = diff.changes[:2]
    first.value, second.value = second.value, first.value
    return diff


def swapped_keys(diff: messages.Diff) -> messages.Diff:
    """The names alone: tokens and values still belong together."""
    first, second = diff.changes[:2]
    first.sealed_key, second.sealed_key = second.sealed_key, first.sealed_key
    return diff


def changed(**members: Any) -> Callable[[messages.Diff], messages.Diff]:
    def tamper(diff: messages.Diff) -> messages.Diff:
        for name, value in members.items():
            setattr(diff.changes[0], name, value)
        return diff

    return tamper


def with_flipped(member: str, at: int) -> Callable[[messages.Diff], messages.Diff]:
    def tamper(diff: messages.Diff) -> messages.Diff:
        setattr(diff.changes[0], member, flipped(getattr(diff.changes[0], member), at))
        return diff

    return tamper


DIFF_LIES: dict[str, Callable[[messages.Diff], Any]] = {
    "values of two keys swapped": swapped_values,
    "names of two keys swapped": swapped_keys,
    "a flipped bit in a value": with_flipped("value", 50),
    "a flipped bit in a key": with_flipped("sealed_key", 50),
    "a key under another token": with_flipped("key", 0),
    "an empty value": changed(value=b""),
    "a value for the key": lambda diff: changed(sealed_key=diff.changes[0].value)(diff),
    "a version not in the range": changed(version=3),
    "a remove in the contents": changed(op="remove"),
    "another range": lambda diff: messages.Diff(
        from_version=diff.from_version + 1, to_version=diff.to_version, changes=[], cursor=None
    ),
    "another end": lambda diff: messages.Diff(
        from_version=diff.from_version, to_version=diff.to_version + 1, changes=[], cursor=None
    ),
    "no end of empty pages": lambda diff: messages.Diff(
        from_version=diff.from_version, to_version=diff.to_version, changes=[], cursor="again"
    ),
    "another message": lambda diff: messages.Listing(logs=[], cursor=None),
}


@pytest.mark.parametrize("lie", list(DIFF_LIES))
async def test_a_tampered_diff_is_refused(log: AsyncLog, double: Double, lie: str) -> None:
    assert len(await listed(log.at(1))) == 2
    double.tamper(messages.Diff, DIFF_LIES[lie])
    with pytest.raises(IndelibleError) as caught:
        await listed(log.at(1))
    if lie == "no end of empty pages":  # the cursor is no cursor of the real service
        assert "BAD_CURSOR" in str(caught.value)
    else:
        assert isinstance(caught.value, LIE)


async def test_a_follower_is_not_led_astray(log: AsyncLog, double: Double) -> None:
    for lie in (with_flipped("value", 50), changed(version=9), changed(op="remove")):
        double.tamper(messages.Diff, lie)
        with pytest.raises(LIE):
            await anext(aiter(log.follow(0)))
    double.tamper(
        messages.Diff,
        lambda diff: messages.Diff(from_version=0, to_version=3, changes=[], cursor=None),
    )
    with pytest.raises(VerificationError):
        await anext(aiter(log.follow(1)))


def as_entry_of(token: bytes) -> Callable[[messages.Entry], messages.Entry]:
    def tamper(entry: messages.Entry) -> messages.Entry:
        entry.key = token
        return entry

    return tamper


async def test_an_entry_of_another_key_is_refused(log: AsyncLog, double: Double) -> None:
    await log.set("b", "vb")
    double.tamper(messages.Entry, lambda entry: entry)
    assert await log.get("b") == "vb"
    entry_of_b = double.answered[-1]
    double.tamper(messages.Entry, lambda entry: entry_of_b)
    with pytest.raises(VerificationError, match="another key"):
        await log.get("a")
    # Under the right token, but with the other's value.
    double.tamper(
        messages.Entry,
        lambda entry: messages.Entry(
            key=entry.key,
            sealed_key=entry.sealed_key,
            value=entry_of_b.value,
            version=entry.version,
        ),
    )
    with pytest.raises(UnsealError):
        await log.get("a")


async def test_entries_that_were_not_asked_for_are_refused(log: AsyncLog, double: Double) -> None:
    def shuffled(entries: messages.Entries) -> messages.Entries:
        entries.entries[0].key = bytes(32)
        return entries

    def older(entries: messages.Entries) -> messages.Entries:
        entries.version -= 1
        return entries

    for lie in (shuffled, older):
        double.tamper(messages.Entries, lie)
        with pytest.raises(VerificationError):
            await log.get_many(["a"], at=3)


async def test_a_tampered_history_or_source_is_refused(log: AsyncLog, double: Double) -> None:
    def value(history: messages.History) -> messages.History:
        history.changes[0].value = flipped(history.changes[0].value, 40)
        return history

    double.tamper(messages.History, value)
    with pytest.raises(UnsealError):
        await listed(log.history("a"))
    double.honest()
    await log.set("a", 1, source="ci")

    def memo(versions: messages.Versions) -> messages.Versions:
        versions.versions[0].header = flipped(versions.versions[0].header, -1)
        return versions

    def cut(versions: messages.Versions) -> messages.Versions:
        versions.versions[0].header = versions.versions[0].header[:100]
        return versions

    for lie in (memo, cut):
        double.tamper(messages.Versions, lie)
        with pytest.raises(LIE):
            await listed(log.versions())


async def test_an_acknowledgement_that_cannot_be_read_leaves_the_outcome_unknown(
    log: AsyncLog, double: Double
) -> None:
    double.tamper(messages.Committed, lambda committed: messages.Listing(logs=[], cursor=None))
    with pytest.raises(OutcomeUnknownError) as caught:
        await log.set("c", 1)
    double.honest()
    assert (await log.settle(caught.value.commit_id)).version == 4


async def test_a_new_epoch_is_taken_up_by_handles_that_are_open(
    client: AsyncClient, log: AsyncLog, double: Double, service: Service
) -> None:
    """The owner starts another epoch; writers seal under it, readers open both."""
    await log.set("kept", 1)
    double.tamper(messages.Opened, lambda opened: opened)
    reader = await client.log("config")
    opened = double.answered[-1]
    double.honest()
    await post(service, opened, rotated(opened.genesis, ME))
    assert (await log.set("a", "new")).version == 6
    assert await reader.get("a") == "new"
    fresh = await client.log("config")
    assert await fresh.get("a", at=3) == "va2"
    assert {entry.key: entry.value async for entry in fresh} == {"a": "new", "kept": 1}
    # A value that was sealed under the earlier epoch is known to be the same.
    assert not (await fresh.set("kept", 1)).changed
    assert (await fresh.update([Remove("kept", 1)])).changed


async def post(service: Service, opened: messages.Opened, commit: messages.Commit) -> None:
    transport = Transport(service.url, service.apikey, database="default", tls=None)
    path = paths.of_log(paths.COMMITS, LogId(opened.description.log_id))
    try:
        await transport.send(
            Request(method="POST", path=path, answer=messages.Committed, body=commit), 5.0
        )
    finally:
        await transport.close()
