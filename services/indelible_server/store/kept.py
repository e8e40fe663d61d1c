"""What stays of forgotten versions: headers, signatures, times, and control commits. Pure.

Proofs of history need the headers: a leaf is made of one, and says by its hash what the body was.
Control commits stay whole, for who opens the log follows their chain. Bodies and effects are gone.
"""

import zlib
from typing import NamedTuple

import msgpack
from indelible_protocol.records import CommitKind, Header
from indelible_protocol.signing import SignedCommit

from indelible_server.store.errors import stored
from indelible_server.store.versions import Page

# Fields of a row as `commit.lua` appends them: h, s, b, t, e; each behind its name.
_HEADER, _SIGNATURE, _BODY, _TIME, _EFFECTS = 1, 3, 5, 7, 9


class KeptHeaders(NamedTuple):
    """Of versions in a row."""

    times_ms: list[int]
    headers: list[bytes]
    signatures: list[bytes]

    def encode(self) -> bytes:
        """The three lists in msgpack, deflated: most of a header is what its neighbours say."""
        return zlib.compress(msgpack.packb(self), 9)

    @classmethod
    def decode(cls, data: bytes) -> "KeptHeaders":
        return cls(*msgpack.unpackb(zlib.decompress(data)))


def what_stays(page: Page) -> dict[str, bytes]:
    """Of a page of versions, by fields: its first version's number has the headers."""
    rows = [fields for _, fields in page.rows]
    headers = KeptHeaders(
        [int(fields[_TIME]) for fields in rows],
        [fields[_HEADER] for fields in rows],
        [fields[_SIGNATURE] for fields in rows],
    )
    return {str(page.first): headers.encode()} | control_commits(page)


def control_commits(page: Page) -> dict[str, bytes]:
    """Those of a page of versions, by fields."""
    commits = {}
    for version, (_, fields) in enumerate(page.rows, page.first):
        if not fields[_EFFECTS] and _kind(fields[_HEADER]) is CommitKind.CONTROL:
            commit = (fields[_HEADER], fields[_SIGNATURE], fields[_BODY])
            commits[control_field(version)] = msgpack.packb(commit)
    return commits


def _kind(header: bytes) -> CommitKind:
    with stored():
        return Header.decode(header).kind


def stored_bytes(page: Page) -> int:
    """What its versions count for in the log's `stored_bytes`."""
    counted = (_HEADER, _SIGNATURE, _BODY, _EFFECTS)
    return sum(len(fields[at]) for _, fields in page.rows for at in counted)


def control_field(version: int) -> str:
    return f"c{version}"


def control_commit(data: bytes) -> SignedCommit:
    header, signature, body = msgpack.unpackb(data)
    return SignedCommit(header=header, signature=signature, body=body)
