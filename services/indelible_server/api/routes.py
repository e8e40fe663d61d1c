"""The operations of the native API: one table, of which routes and API document are made."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from indelible_protocol import messages, paths
from indelible_protocol.errors import ErrorCode
from indelible_protocol.messages import Message
from msgspec import Struct

from indelible_server.api import diffs, events, forgetting, logs, watching, webhooks
from indelible_server.api.parameters import (
    AT,
    CONFLICT,
    CURSOR,
    DELIVERY_STATE,
    FROM,
    GROUP,
    KIND,
    LIMIT,
    PAGE,
    TICKET,
    TO,
    Parameter,
)

Code = ErrorCode
_LOG = (Code.NONEXISTENT_LOG, Code.LOG_REPLACED)
_PAGED = (Code.BAD_CURSOR,)
_WEBHOOK = (Code.NONEXISTENT_WEBHOOK,)
_WRITTEN = (Code.OUTCOME_UNKNOWN, Code.STORAGE_FULL)
_VERSIONED = (Code.NONEXISTENT_VERSION, Code.FORGOTTEN_VERSION)


class Operation(Struct, frozen=True, kw_only=True):
    """`bodies` are the messages that it takes (one of them), `answers` what each status holds.

    `errors` are those beside what every operation may end with; `headers` those of its own.
    `streams`: the 200 goes on, as server-sent events. `lines`: it may be many messages, in JSON
    each on a line.
    """

    id: str
    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    summary: str
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    bodies: tuple[type[Message], ...] = ()
    answers: dict[int, type[Message] | None]
    errors: tuple[ErrorCode, ...] = ()
    streams: bool = False
    lines: bool = False


IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    description="opaque logs: the same key and commit get the same answer; 1 to 64 characters",
)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        id="createLog",
        method="PUT",
        path=paths.NAME,
        handler=logs.create,
        summary="Make the log of this name, or open the one that is there.",
        query=(KIND,),
        bodies=(messages.CreateSealed, messages.CreateOpaque),
        answers={201: messages.Opened, 200: messages.Opened},
        errors=(
            Code.LOG_EXISTS,
            Code.QUOTA_EXCEEDED,
            Code.LOG_REPLACED,
            Code.BAD_SIGNATURE,
            Code.TRANSACTION_CONFLICT,
            Code.NONEXISTENT_LOG,
        ),
    ),
    Operation(
        id="openLog",
        method="GET",
        path=paths.NAME,
        handler=logs.open_name,
        summary="Open the log of this name: what it is, its genesis and its control commits.",
        query=(KIND,),
        answers={200: messages.Opened},
        errors=(Code.NONEXISTENT_LOG,),
    ),
    Operation(
        id="listLogs",
        method="GET",
        path=paths.LOGS,
        handler=logs.list_logs,
        summary="List logs, oldest first.",
        query=(GROUP, CURSOR, LIMIT),
        answers={200: messages.Listing},
        errors=_PAGED,
    ),
    Operation(
        id="describeLog",
        method="GET",
        path=paths.LOG,
        handler=logs.describe,
        summary="Describe a log.",
        answers={200: messages.Description},
        errors=_LOG,
    ),
    Operation(
        id="deleteLog",
        method="DELETE",
        path=paths.LOG,
        handler=logs.delete,
        summary="Delete a log with all its versions; its name is free again.",
        answers={204: None},
        errors=_LOG,
    ),
    Operation(
        id="commit",
        method="POST",
        path=paths.COMMITS,
        handler=logs.commit,
        summary="Commit: all commands in order, or none. 200 if nothing changed.",
        query=(CONFLICT,),
        headers=(IDEMPOTENCY_KEY, TICKET),
        bodies=(messages.Commit, messages.PlainCommit),
        answers={201: messages.Committed, 200: messages.Committed},
        errors=(
            *_LOG,
            Code.UNEXPECTED_VERSION,
            Code.UNEXPECTED_VALUE,
            Code.NONEXISTENT_VALUE,
            Code.UNEXPECTED_ENTRY,
            Code.UNAUTHORIZED_OPERATION,
            Code.WRONG_LOG_KIND,
            Code.IDEMPOTENCY_MISMATCH,
            Code.IDEMPOTENCY_EXPIRED,
            Code.BAD_SIGNATURE,
            Code.STALE_EPOCH,
            Code.OUTCOME_UNKNOWN,
            Code.STORAGE_FULL,
            Code.QUOTA_EXCEEDED,
            Code.NOT_DURABLE,
        ),
    ),
    Operation(
        id="readCommits",
        method="GET",
        path=paths.COMMITS,
        handler=diffs.commits,
        summary="Read the commits of the versions in (from, to], as many as fit.",
        query=(FROM, TO),
        answers={200: messages.Commits},
        errors=(*_LOG, *_VERSIONED),
    ),
    Operation(
        id="diff",
        method="GET",
        path=paths.DIFF,
        handler=diffs.diff,
        summary="The net changes between two versions; waits for the next one if asked to.",
        query=diffs.DIFF_PARAMETERS,
        answers={200: messages.Diff, 204: None, 304: None},
        errors=(*_LOG, *_VERSIONED, *_PAGED),
        lines=True,
    ),
    Operation(
        id="followLog",
        method="GET",
        path=paths.EVENTS,
        handler=events.events,
        summary="Follow a log: its diffs as server-sent events, as they come.",
        query=events.EVENT_PARAMETERS,
        headers=(events.LAST_EVENT_ID,),
        answers={200: None},
        errors=(*_LOG, *_VERSIONED),
        streams=True,
    ),
    Operation(
        id="readEntry",
        method="GET",
        path=paths.ENTRY,
        handler=diffs.entry,
        summary="The entry of a key, now or at a version.",
        query=(AT,),
        answers={200: messages.Entry},
        errors=(*_LOG, *_VERSIONED, Code.NONEXISTENT_KEY),
    ),
    Operation(
        id="readHistory",
        method="GET",
        path=paths.HISTORY,
        handler=diffs.history,
        summary="What a key has held, newest first.",
        query=(CURSOR, LIMIT),
        answers={200: messages.History},
        errors=(*_LOG, *_PAGED),
    ),
    Operation(
        id="readEntries",
        method="POST",
        path=paths.BATCH_GET,
        handler=diffs.batch_get,
        summary="The entries of many keys, all of one version; absent ones are left out.",
        bodies=(messages.BatchGet,),
        answers={200: messages.Entries},
        errors=(*_LOG, *_VERSIONED),
    ),
    Operation(
        id="readVersions",
        method="GET",
        path=paths.VERSIONS,
        handler=diffs.versions,
        summary="The commits that took effect, newest first.",
        query=(CURSOR, LIMIT),
        answers={200: messages.Versions},
        errors=(*_LOG, *_PAGED),
    ),
    Operation(
        id="forgetVersions",
        method="POST",
        path=paths.FORGET,
        handler=forgetting.forget,
        summary="Make a version the first that can be read; 202 while that goes on: ask again.",
        bodies=(messages.Forget,),
        answers={200: messages.Forgotten, 202: messages.Forgotten},
        errors=(*_LOG, *_WRITTEN, Code.NONEXISTENT_VERSION, Code.UNAUTHORIZED_OPERATION),
    ),
    Operation(
        id="waitForLogs",
        method="POST",
        path=paths.WAIT,
        handler=watching.wait,
        summary="Wait until one of many logs, or a group's listing, is beyond its version.",
        bodies=(messages.Wait,),
        answers={200: messages.Moved},
        errors=_PAGED,
    ),
    Operation(
        id="createWebhook",
        method="POST",
        path=paths.WEBHOOKS,
        handler=webhooks.create,
        summary="Have a URL told of new versions, once it has answered a challenge.",
        bodies=(messages.CreateWebhook,),
        answers={201: messages.Webhook},
        errors=(*_LOG, *_WRITTEN, Code.QUOTA_EXCEEDED),
    ),
    Operation(
        id="listWebhooks",
        method="GET",
        path=paths.WEBHOOKS,
        handler=webhooks.list_webhooks,
        summary="List webhooks, oldest first.",
        query=(CURSOR, PAGE),
        answers={200: messages.Webhooks},
        errors=_PAGED,
    ),
    Operation(
        id="describeWebhook",
        method="GET",
        path=paths.WEBHOOK,
        handler=webhooks.describe,
        summary="Describe a webhook.",
        answers={200: messages.Webhook},
        errors=_WEBHOOK,
    ),
    Operation(
        id="deleteWebhook",
        method="DELETE",
        path=paths.WEBHOOK,
        handler=webhooks.delete,
        summary="Delete a webhook with what waits to be delivered.",
        answers={204: None},
        errors=(*_WEBHOOK, *_WRITTEN),
    ),
    Operation(
        id="enableWebhook",
        method="POST",
        path=paths.WEBHOOK_ENABLE,
        handler=webhooks.enable,
        summary="Challenge a webhook again; what waits is sent once it has answered.",
        answers={200: messages.Webhook},
        errors=(*_WEBHOOK, *_WRITTEN, Code.TRANSACTION_CONFLICT),
    ),
    Operation(
        id="rotateWebhookSecret",
        method="POST",
        path=paths.WEBHOOK_ROTATE,
        handler=webhooks.rotate_secret,
        summary="Sign with a new key; the one before signs beside it for a day.",
        answers={200: messages.RotatedSecret},
        errors=(*_WEBHOOK, *_WRITTEN, Code.TRANSACTION_CONFLICT),
    ),
    Operation(
        id="triggerWebhook",
        method="POST",
        path=paths.WEBHOOK_TRIGGER,
        handler=webhooks.trigger,
        summary="Send a test event.",
        answers={202: messages.Triggered},
        errors=(*_WEBHOOK, *_WRITTEN, Code.QUOTA_EXCEEDED),
    ),
    Operation(
        id="listDeliveries",
        method="GET",
        path=paths.WEBHOOK_DELIVERIES,
        handler=webhooks.deliveries,
        summary="List deliveries with their attempts, newest first.",
        query=(DELIVERY_STATE, CURSOR, PAGE),
        answers={200: messages.Deliveries},
        errors=(*_WEBHOOK, *_PAGED),
    ),
    Operation(
        id="replayDeadLetters",
        method="POST",
        path=paths.WEBHOOK_REPLAY,
        handler=webhooks.replay,
        summary="Deliver dead letters again, oldest first.",
        bodies=(messages.Replay,),
        answers={200: messages.Replayed},
        errors=(*_WEBHOOK, *_WRITTEN),
    ),
)


def routes() -> list[web.RouteDef]:
    return [
        web.route(operation.method, operation.path, operation.handler) for operation in OPERATIONS
    ]
