"""Every key in Redis, its shape, and the one process that writes it.

All keys of a log carry its id as hash tag and so live in one cluster slot, and so do those of
a webhook; name records, listings and credentials are in slots of their own. No key is made of
request text: names and groups come in hashed.

| key | type | holds | written by |
|---|---|---|---|
| `{<log id>}:meta` | hash | version, safe version, epoch, counters, genesis; the tombstone | api |
| `{<log id>}:commits` | stream | `<version>-0` → header, signature, body, time, effects | api |
| `{<log id>}:index` | hash | token → place (version, index, offset, entry_hash) ‖ value_id | api |
| `{<log id>}:chains` | hash | writer ‖ chain → msgpack answer (sealed logs) | api |
| `{<log id>}:chainorder` | sorted set | writer ‖ chain by the version of its answer | api |
| `{<log id>}:answers0`, `1` | hash | idempotency key → msgpack answer (opaque logs) | api |
| `{<log id>}:control` | list | versions of the control commits after the genesis | api |
| `{<log id>}:kept` | hash | what stays of forgotten versions: headers, control commits | api |
| `{<log id>}:versions` | channel | hint: the version, perhaps with its news, or `deleted` | api |
| `{<log id>}:snapshots` | sorted set | snapshots that are whole, by version | materializer, api |
| `{<log id>}:chunks` | hash | `<version>:…` → a piece of a snapshot | materializer, api |
| `{<log id>}:blocks` | hash | number → what 256 versions filled and emptied; sums | materializer |
| `{<log id>}:materialized` | hash | how far blocks go; changes there | materializer, api |
| `{<log id>}:segments` | sorted set | archived versions, by the first | materializer, api |
| `{<log id>}:parts` | hash | version → objects with a snapshot | materializer, api |
| `{<log id>}:unlisted` | hash | object that may be there → what for | materializer, api |
| `{archive}:deleted` | sorted set | deleted logs with objects, by ms | api, materializer |
| `{n:<tenant>:<database>:<hash>}` | string | msgpack name record | api |
| `{l:<tenant>:<database>}:logs` | sorted set | u64 created_ms ‖ log id, all scores 0 | api |
| `{l:<tenant>:<database>}:group:<hash>` | sorted set | the same, of one group | api |
| `{l:<tenant>:<database>}:group:<hash>:version` | string | how often the listing changed | api |
| `{l:<tenant>:<database>}:group:<hash>:versions` | channel | hint: the listing's version | api |
| `{t:<tenant>}` | hash | the tenant's name and time of creation | tenant command |
| `{t:<tenant>}:keys` | set | public ids of its API keys | tenant command |
| `{t:<tenant>}:databases` | set | names of databases that hold logs | api |
| `{tenants}` | hash | tenant name → tenant id | tenant command |
| `{k:<key id>}` | hash | tenant, keyed hash of the API key, time of creation | tenant command |
| `{t:<tenant>}:webhooks` | sorted set | ids of its webhooks by their time of creation | api |
| `{webhooks}` | set | ids of the tenants that have, or had, webhooks | api |
| `{webhooks}:changes` | stream | hint: tenant `t` and id `w` of a webhook that changed | api |
| `{w:<tenant>:<id>}:meta` | hash | what the webhook is, state, salts, counters | api, webhooks |
| `{w:<tenant>:<id>}:claim` | string | the dispatcher that works on it, fence; expires | webhooks |
| `{w:<tenant>:<id>}:positions` | hash | log id → version delivered up to | api, webhooks |
| `{w:<tenant>:<id>}:pending` | hash | delivery id → msgpack delivery | api, webhooks |
| `{w:<tenant>:<id>}:due` | sorted set | delivery ids by their next attempt | api, webhooks |
| `{w:<tenant>:<id>}:replays` | list | dead letters to deliver again, in order | api, webhooks |
| `{w:<tenant>:<id>}:finished` | list | deliveries without bodies, newest first | webhooks |
| `{w:<tenant>:<id>}:dead` | list | u64 ms of death ‖ delivery, oldest first | api, webhooks |
"""

from hashlib import sha256

from indelible_protocol.commands import LogKind
from indelible_protocol.ids import LogId
from msgspec import Struct

TENANTS = "{tenants}"
WEBHOOK_TENANTS = "{webhooks}"
WEBHOOK_CHANGES = "{webhooks}:changes"
ARCHIVE_DELETED = "{archive}:deleted"


class LogKeys(Struct, frozen=True):
    """The keys of one log, in the order in which functions take them."""

    meta: str
    commits: str
    index: str
    chains: str
    chain_order: str
    answers0: str
    answers1: str
    control: str
    channel: str

    def all(self) -> tuple[str, ...]:
        return (
            self.meta,
            self.commits,
            self.index,
            self.chains,
            self.chain_order,
            self.answers0,
            self.answers1,
            self.control,
            self.channel,
        )


class MaterializedKeys(Struct, frozen=True):
    """The keys of what the materializer makes of one log, in the order in which functions take
    them.

    All of it follows from the log; a log without any of it is read as rightly, only slower.
    """

    snapshots: str
    chunks: str
    blocks: str
    progress: str

    def all(self) -> tuple[str, ...]:
        return (self.snapshots, self.chunks, self.blocks, self.progress)


class ArchivedKeys(Struct, frozen=True):
    """The keys of what of one log is in the archive, in the order in which functions take them."""

    segments: str
    parts: str
    unlisted: str

    def all(self) -> tuple[str, ...]:
        return (self.segments, self.parts, self.unlisted)


class WebhookKeys(Struct, frozen=True):
    """The keys of one webhook, in the order in which functions take them."""

    meta: str
    claim: str
    positions: str
    pending: str
    due: str
    replays: str
    finished: str
    dead: str

    def all(self) -> tuple[str, ...]:
        return (
            self.meta,
            self.claim,
            self.positions,
            self.pending,
            self.due,
            self.replays,
            self.finished,
            self.dead,
        )


def of_log(log_id: LogId) -> LogKeys:
    tag = "{" + log_id.hex() + "}:"
    return LogKeys(
        tag + "meta",
        tag + "commits",
        tag + "index",
        tag + "chains",
        tag + "chainorder",
        tag + "answers0",
        tag + "answers1",
        tag + "control",
        tag + "versions",
    )


def materialized(log_id: LogId) -> MaterializedKeys:
    tag = "{" + log_id.hex() + "}:"
    return MaterializedKeys(tag + "snapshots", tag + "chunks", tag + "blocks", tag + "materialized")


def archived(log_id: LogId) -> ArchivedKeys:
    tag = "{" + log_id.hex() + "}:"
    return ArchivedKeys(tag + "segments", tag + "parts", tag + "unlisted")


def kept(log_id: LogId) -> str:
    """What stays of versions that were forgotten."""
    return "{" + log_id.hex() + "}:kept"


def all_of_log(log_id: LogId) -> tuple[str, ...]:
    """What is deleted with a log."""
    log_keys, beside = of_log(log_id).all(), materialized(log_id).all()
    return (*log_keys, *beside, kept(log_id), *archived(log_id).all())


def name(tenant: str, database: str, kind: LogKind, token: bytes) -> str:
    digest = sha256(bytes((kind,)) + token).hexdigest()
    return f"{{n:{tenant}:{database}:{digest}}}"


def listing(tenant: str, database: str) -> str:
    return f"{{l:{tenant}:{database}}}:logs"


class GroupKeys(Struct, frozen=True):
    """The keys of one group, in the order in which functions take them."""

    listing: str
    version: str
    channel: str


def group(tenant: str, database: str, name: str) -> GroupKeys:
    key = f"{{l:{tenant}:{database}}}:group:{sha256(name.encode()).hexdigest()}"
    return GroupKeys(key, key + ":version", key + ":versions")


def tenant(tenant_id: str) -> str:
    return f"{{t:{tenant_id}}}"


def tenant_keys(tenant_id: str) -> str:
    return f"{{t:{tenant_id}}}:keys"


def tenant_databases(tenant_id: str) -> str:
    return f"{{t:{tenant_id}}}:databases"


def credential(key_id: str) -> str:
    return f"{{k:{key_id}}}"


def tenant_webhooks(tenant_id: str) -> str:
    return f"{{t:{tenant_id}}}:webhooks"


def of_webhook(tenant_id: str, webhook_id: str) -> WebhookKeys:
    tag = f"{{w:{tenant_id}:{webhook_id}}}:"
    return WebhookKeys(
        tag + "meta",
        tag + "claim",
        tag + "positions",
        tag + "pending",
        tag + "due",
        tag + "replays",
        tag + "finished",
        tag + "dead",
    )
