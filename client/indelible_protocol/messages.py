"""Messages of the native API: their shapes, and the two forms they travel in.

`application/msgpack` is what our client speaks; JSON, with bytes as base64, is for people
and other languages. Both forms are decoded under hard bounds: nesting, lengths, duplicate
keys, unknown members and lossy numbers are refused. Sealed and signed bytes travel inside
as they are.
"""

import json
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import msgpack
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from indelible_protocol import limits
from indelible_protocol.commands import check_count
from indelible_protocol.errors import ErrorCode, ProtocolError

TICKET_WANTED = "wanted"  # in the header `Indelible-Ticket`, of who has none
_MAX_REASON_CHARS = 300  # a decoder's words may quote a key of any length


Whole = Annotated[int, Meta(ge=0, le=limits.MAX_VERSION)]
Milliseconds = Annotated[int, Meta(ge=0, le=limits.MAX_TIME_MS)]
LogIdBytes = Annotated[bytes, Meta(min_length=32, max_length=32)]
KeyBytes = Annotated[bytes, Meta(min_length=1, max_length=limits.MAX_KEY_BYTES)]


class Form(Enum):
    """A content type that a body may have."""

    MSGPACK = "application/msgpack"
    JSON = "application/json"


PROBLEM_TYPES = {
    Form.MSGPACK: "application/problem+msgpack",
    Form.JSON: "application/problem+json",
}


class Message(Struct, forbid_unknown_fields=True, omit_defaults=False, kw_only=True):
    """A body or a part of one."""


class Commit(Message):
    """A commit as bytes: what its writer signed, and what the log stores."""

    header: bytes
    signature: bytes
    body: bytes


class CreateSealed(Message):
    """PUT /v2/names/{token}: the genesis commit makes the log."""

    genesis: Commit
    group: str = ""


class CreateOpaque(Message):
    """PUT /v2/names/{name}?kind=opaque."""

    group: str = ""


class PlainCommand(Message):
    """A command of an opaque log, spelled out. `type` decides which members apply."""

    type: Literal[
        "Upsert",
        "Insert",
        "Update",
        "Remove",
        "Delete",
        "ExpectVersion",
        "ExpectAbsent",
        "ExpectEntry",
    ]
    key: bytes | UnsetType = UNSET
    value: bytes | UnsetType = UNSET
    version: Whole | UnsetType = UNSET


class PlainCommit(Message):
    """POST commits to an opaque log; the server lays the commit out."""

    commands: list[PlainCommand]
    source: str = ""

    def __post_init__(self) -> None:
        check_count(len(self.commands), max_commands=limits.MAX_COMMANDS)


class Committed(Message):
    """Answer to a commit: 201 for a new version, 200 when nothing changed.

    `repeated`: this is the answer that an earlier send of the same commit got. `durability`
    is the deployment's profile under which the acknowledgement was given.
    """

    version: Whole
    changed: bool
    repeated: bool
    durability: Literal["strict", "relaxed"]


class Description(Message):
    """A log: what it is and where it stands. Times are milliseconds since 1970, UTC.

    `name` is the name's token (sealed) or the name (opaque); `name_ct` is the sealed name.
    `entries` are the live ones; `stored_bytes` is the size of its commits.
    """

    log_id: bytes
    kind: Literal["sealed", "opaque"]
    name: bytes
    group: str
    incarnation: Whole
    version: Whole
    first_version: Whole
    created_ms: Milliseconds
    updated_ms: Milliseconds
    entries: Whole
    stored_bytes: Whole
    max_commands: Whole
    max_commit_bytes: Whole
    generation: Whole
    epoch: Whole
    ctl_seq: Whole
    name_ct: bytes


class Opened(Message):
    """Answer to a name: the log, its genesis, and the control commits after it in order."""

    description: Description
    genesis: Commit
    control: list[Commit]


class Listing(Message):
    """`version` is that of the group's listing before it was read; None for all groups."""

    logs: list[Description]
    cursor: str | None
    version: Whole | None = None


class StoredCommit(Message):
    """A version as stored: the commit as received, and when."""

    version: Whole
    time_ms: Milliseconds
    header: bytes
    signature: bytes
    body: bytes


class Commits(Message):
    """Commits of the versions in (from, to]; ask again from `to` while it is below yours."""

    commits: list[StoredCommit]
    to: Whole


class DiffChange(Message):
    """An entry that comes or goes; `version` introduced it.

    `key` is the token (sealed) or the key (opaque); `sealed_key` is empty in an opaque log.
    """

    op: Literal["add", "remove"]
    key: bytes
    sealed_key: bytes
    value: bytes
    version: Whole


class Diff(Message, rename={"from_version": "from", "to_version": "to"}):
    """Net changes from one version to another; `cursor` asks for the rest of them."""

    from_version: Whole
    to_version: Whole
    changes: list[DiffChange]
    cursor: str | None


class Entry(Message):
    key: bytes
    sealed_key: bytes
    value: bytes
    version: Whole


class BatchGet(Message):
    """POST entries:batchGet; `at` is a version, absent for the current one."""

    keys: Annotated[list[bytes], Meta(min_length=1, max_length=limits.MAX_BATCH_KEYS)]
    at: Whole | UnsetType = UNSET


class Entries(Message):
    """The entries that exist, in the order asked for, at `version`."""

    version: Whole
    entries: list[Entry]


class KeyChange(Message):
    """One step in a key's history: what the key held from `version` on, or that it went."""

    op: Literal["set", "remove"]
    version: Whole
    time_ms: Milliseconds
    sealed_key: bytes
    value: bytes


class History(Message):
    """Newest first; what came below `first_version` is forgotten."""

    changes: list[KeyChange]
    cursor: str | None
    first_version: Whole = 0


class VersionInfo(Message):
    """`source` is the commit's memo: sealed, or plain in an opaque log."""

    version: Whole
    time_ms: Milliseconds
    writer: bytes
    source: bytes
    commands: Whole
    changes: Whole
    stored_bytes: Whole
    header: bytes


class Versions(Message):
    """Newest first; those below `first_version` are forgotten."""

    versions: list[VersionInfo]
    cursor: str | None
    first_version: Whole = 0


class Forget(Message):
    """POST forget: `before` becomes the first version that can be read.

    In a sealed log, only once its owner has committed a Forget record of it or a later one.
    """

    before: Annotated[int, Meta(ge=1, le=limits.MAX_VERSION)]


class Forgotten(Message):
    """How far forgetting is: 200 when it is `done`, 202 while it goes on; ask again then.

    `handled` of `total` parts of the `step` are through. The bytes are those of commits, base,
    kept headers and snapshots as they are stored, before forgetting began and now.
    """

    before: Whole
    first_version: Whole
    done: bool
    step: Literal["base", "trim", "sweep", "done"]
    handled: Whole
    total: Whole
    bytes_before: Whole
    bytes_now: Whole


class Watched(Message):
    log_id: LogIdBytes
    version: Whole


class WatchedGroup(Message):
    """`version` counts the changes of the group's listing: logs that came and went."""

    group: str
    version: Whole


class Wait(Message):
    """POST /v2/wait: answered when something is beyond its version, or after `wait` seconds.

    With `keep`, the service remembers what is watched and its answer names the `watch`; the
    next request names it and tells only what is new: versions that moved, logs to add.
    With `diffs`, the answer brings the first page of each log's diff, as far as they fit.
    """

    logs: Annotated[list[Watched], Meta(max_length=limits.MAX_WAIT_LOGS)] = []
    groups: Annotated[list[WatchedGroup], Meta(max_length=limits.MAX_WAIT_GROUPS)] = []
    wait: Annotated[float, Meta(ge=0, le=limits.MAX_WAIT_SECONDS)] = 30.0
    watch: str | None = None
    keep: bool = False
    diffs: bool = False


class MovedLog(Message):
    """`diff` runs from the version given to `version`; None if it was not asked for, or did not
    fit beside the others."""

    log_id: LogIdBytes
    version: Whole
    diff: Diff | None = None


class Moved(Message):
    """What is beyond the version given; `gone` are logs that were deleted or never there."""

    moved: list[MovedLog]
    gone: list[bytes]
    groups: list[WatchedGroup]
    watch: str | None


class CreateWebhook(Message):
    """POST /v2/webhooks: whom to tell of new versions, and of which.

    `log` alone, `group` alone, or neither for every log of the database. With `tokens`, only
    versions that change one of these keys. `payload` says whether a delivery carries the diff.
    """

    url: Annotated[str, Meta(min_length=1, max_length=limits.MAX_WEBHOOK_URL_CHARS)]
    log: LogIdBytes | UnsetType = UNSET
    group: str | UnsetType = UNSET
    tokens: Annotated[list[KeyBytes], Meta(max_length=limits.MAX_WEBHOOK_TOKENS)] = []
    payload: Literal["thin", "diff"] = "thin"
    signature: Literal["hmac", "ed25519"] = "hmac"
    description: Annotated[str, Meta(max_length=limits.MAX_WEBHOOK_DESCRIPTION_CHARS)] = ""


class WebhookKey(Message, omit_defaults=True):
    """A key that deliveries are signed with; `public_key` is that of an Ed25519 one."""

    since_ms: Milliseconds
    until_ms: Milliseconds | UnsetType = UNSET
    public_key: str | UnsetType = UNSET


class Attempt(Message, omit_defaults=True):
    """One request of a delivery. `status` null: there was no answer, `error` says why."""

    at_ms: Milliseconds
    status: Whole | None
    took_ms: Whole
    answer: str
    error: str | UnsetType = UNSET


class Webhook(Message, omit_defaults=True):
    """A subscription. `pending` and `dead` count deliveries; `reason` says why it is disabled."""

    webhook_id: str
    url: str
    tokens: list[bytes]
    payload: Literal["thin", "diff"]
    signature: Literal["hmac", "ed25519"]
    description: str
    state: Literal["unverified", "active", "disabled"]
    created_ms: Milliseconds
    keys: list[WebhookKey]
    pending: Whole
    dead: Whole
    log: bytes | UnsetType = UNSET
    group: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    last_attempt: Attempt | UnsetType = UNSET
    secret: str | UnsetType = UNSET


class Webhooks(Message):
    """Oldest first."""

    webhooks: list[Webhook]
    cursor: str | None


class RotatedSecret(Message, omit_defaults=True):
    """The new key's secret, told this once; none with Ed25519, whose public key is in `webhook`."""

    webhook: Webhook
    secret: str | UnsetType = UNSET


class Triggered(Message):
    delivery_id: str


class Delivery(Message, omit_defaults=True):
    """One event for one webhook, and the attempts to deliver it, oldest first."""

    delivery_id: str
    type: str
    state: Literal["pending", "delivered", "dead"]
    created_ms: Milliseconds
    attempts: list[Attempt]
    log_id: bytes | UnsetType = UNSET
    from_version: Whole | UnsetType = UNSET
    to_version: Whole | UnsetType = UNSET
    due_ms: Milliseconds | UnsetType = UNSET


class Deliveries(Message):
    """Newest first."""

    deliveries: list[Delivery]
    cursor: str | None


class Replay(Message):
    """POST replay: dead letters that died at `since` (milliseconds since 1970) or later."""

    since: Milliseconds


class Replayed(Message):
    replayed: Whole


class Problem(Message):
    """An error: RFC 9457 members, and the original protocol's beside them."""

    type: str
    title: str
    status: Whole
    code: str
    codeNumber: Whole  # noqa: N815 - the original protocol's spelling
    message: str
    details: dict[str, Any]
    retryable: bool
    may_have_applied: bool
    request_id: str


def packed_diff(
    from_version: int, to_version: int, changes: Sequence[bytes], cursor: str | None
) -> bytes:
    """A `Diff` in msgpack, of changes that are in msgpack already."""
    return b"".join(
        (
            *(b"\x84\xa4from", msgpack.packb(from_version)),
            *(b"\xa2to", msgpack.packb(to_version)),
            *(b"\xa7changes", msgpack.Packer().pack_array_header(len(changes)), *changes),
            *(b"\xa6cursor", msgpack.packb(cursor)),
        )
    )


def diff_line(packed: bytes) -> bytes:
    """The same `Diff` in JSON, with the end of its line."""
    return msgspec.json.encode(msgspec.msgpack.decode(packed, type=Diff)) + b"\n"


M = TypeVar("M", bound=Message)


def encode(message: Message, form: Form) -> bytes:
    if form is Form.JSON:
        return msgspec.json.encode(message)
    return msgspec.msgpack.encode(message)


def decode(data: bytes, kind: type[M], form: Form) -> M:
    """A message of `kind`.

    The shape is judged first: that ends at the first byte that does not fit, so what is
    malformed costs next to nothing. Only what fits is read again, for keys that stand twice.

    Raises:
        ProtocolError: not of the form, beyond a bound, or another shape; says where.
    """
    try:
        message: M = _decoder(kind, form).decode(data)
        _check_strictly[form](data)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ProtocolError):
            raise error.__cause__ from None
        raise ProtocolError(_reason(error)) from None
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        word = form.name.lower() if form is Form.MSGPACK else form.name
        raise ProtocolError(f"not {word} within bounds: {_reason(error)}") from None
    if isinstance(message, Problem):  # every other shape bounds its nesting
        _check_nesting(message.details)
    return message


@cache
def _decoder(kind: type[M], form: Form) -> Any:
    return msgspec.json.Decoder(kind) if form is Form.JSON else msgspec.msgpack.Decoder(kind)


def _check_msgpack(data: bytes) -> None:
    # Read without a look at each key, a key that stands twice is lost, and the rest is shorter
    # when it is written again. So is what was not written as short as can be: that is looked at.
    if len(msgspec.msgpack.encode(_unpacked(data, None))) != len(data):
        _unpacked(data, _unique)


def _unpacked(data: bytes, pairs_hook: Callable[[list[tuple[str, object]]], None] | None) -> object:
    return msgpack.unpackb(
        data,
        raw=False,
        strict_map_key=True,
        max_array_len=limits.MAX_WAIT_LOGS,
        max_map_len=64,
        max_str_len=limits.MAX_NAME_BYTES * 2,
        max_bin_len=limits.MAX_COMMIT_BYTES + limits.MAX_COMMANDS * 16,
        max_ext_len=0,
        object_pairs_hook=pairs_hook,
    )


def _check_json(data: bytes) -> None:
    json.loads(data, object_pairs_hook=_unique)


_check_strictly = {Form.MSGPACK: _check_msgpack, Form.JSON: _check_json}


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:_MAX_REASON_CHARS]


def _unique(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise ProtocolError("a key stands twice in one object")


def _check_nesting(value: object) -> None:
    depth = 0
    level = [value]
    while level:
        depth += 1
        if depth > limits.MAX_NESTING:
            raise ProtocolError(f"nested deeper than {limits.MAX_NESTING}")
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level = below


def problem(
    code: ErrorCode, message: str, details: dict[str, Any], *, request_id: str, url: str
) -> Problem:
    """`url` documents the code; its last part is the code's word."""
    return Problem(
        type=url,
        title=code.name.replace("_", " ").capitalize(),
        status=code.http_status,
        code=code.name,
        codeNumber=code.number,
        message=message,
        details=details,
        retryable=code.retryable,
        may_have_applied=code.may_have_applied,
        request_id=request_id,
    )
