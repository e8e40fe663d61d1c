"""The log whose bytes are fuzzed: fixed keys, a fixed genesis, nothing random."""

from indelible.keyring import Identity
from indelible.modes import Mode
from indelible.names import name_bytes
from indelible.opening import found_log
from indelible.sealing import LogKeys, LogSecrets
from indelible_protocol import limits, messages
from indelible_protocol.commands import LogKind, encode_body
from indelible_protocol.records import ControlRecord, Header, control_commands
from indelible_protocol.signing import body_root, sign_commit
from indelible_server.store.admission import LogIdentity

NAME = name_bytes("config")
IDENTITY = Identity.from_master_key(bytes(32))
GENESIS = found_log(
    IDENTITY, NAME, Mode.STRING, Mode.JSON, now_ms=1_700_000_000_000, random_bytes=bytes
)
_HEADER = Header.decode(GENESIS.header)
LOG_ID = _HEADER.log_id
KEYS = LogKeys(
    LOG_ID,
    [LogSecrets(generation=1, epoch=1, generation_secret=bytes(32), epoch_secret=bytes(32))],
)


def log_identity(kind: LogKind) -> LogIdentity:
    """The log as the server knows it."""
    return LogIdentity(
        log_id=LOG_ID,
        tenant="tenant",
        database="default",
        kind=kind,
        name=NAME,
        group="",
        owner=IDENTITY.pk_sign,
        max_commands=limits.MAX_COMMANDS,
        max_commit_bytes=limits.MAX_COMMIT_BYTES,
        incarnation=1,
    )


def opened(*control: messages.Commit, ctl_seq: int) -> messages.Opened:
    """The service's answer to the log's name."""
    return messages.Opened(
        description=messages.Description(
            log_id=LOG_ID,
            kind="sealed",
            name=IDENTITY.name_token(NAME),
            group="",
            incarnation=1,
            version=0,
            first_version=0,
            created_ms=0,
            updated_ms=0,
            entries=0,
            stored_bytes=0,
            max_commands=limits.MAX_COMMANDS,
            max_commit_bytes=limits.MAX_COMMIT_BYTES,
            generation=1,
            epoch=1,
            ctl_seq=ctl_seq,
            name_ct=b"",
        ),
        genesis=GENESIS,
        control=list(control),
    )


def signed(body: bytes, count: int, root: bytes, **members: object) -> messages.Commit:
    """A commit of the owner's that names `body` truly, whatever it holds."""
    fields: dict[str, object] = {
        "kind": _HEADER.kind,
        "log_id": LOG_ID,
        "writer": IDENTITY.pk_sign,
        "generation": 1,
        "epoch": 1,
        "command_count": count,
        "body_root": root,
        "body_bytes": len(body),
    }
    header = Header(**fields | members)  # type: ignore[arg-type]
    commit = sign_commit(header, body, IDENTITY.secret_sign_key)
    return messages.Commit(header=commit.header, signature=commit.signature, body=body)


def control_commit(record: ControlRecord) -> messages.Commit:
    commands = control_commands([record])
    return signed(encode_body(commands), 1, body_root(commands), ctl_seq=4)
