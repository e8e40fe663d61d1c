"""Inputs that reach far into each target, from which others are bred."""

from collections.abc import Iterator

from indelible_protocol import limits, messages
from indelible_protocol.commands import Op, encode_body
from indelible_protocol.diff import Effect, Place, encode_effects
from indelible_protocol.messages import Form, Message
from indelible_protocol.records import ControlRecord, Epoch, Meta, control_chain

from tests.fuzz import subject
from tests.fuzz.targets import ANSWERS, FORMS, REQUESTS
from tests.support.writers import opaque_command, sealed_command

_SETS = (Op.UPSERT, Op.INSERT, Op.UPDATE)
_OPS = (*_SETS, Op.REMOVE, Op.DELETE, Op.EXPECT_ABSENT, Op.EXPECT_ENTRY)
_KEY = subject.KEYS.seal_key(b"key")
_VALUE = subject.KEYS.seal_value(_KEY[:32], b'{"a": [1, null]}')


def seeds(target: str) -> list[bytes]:
    return list({"commit_decoder": _commits, "v1_body": _v1_bodies,
                 "client_opener": _answers, "diff_merge": _effects}[target]())  # fmt: skip


def _commits() -> Iterator[bytes]:
    genesis = subject.GENESIS
    sealed = [sealed_command(op, 1, 2) for op in _OPS]
    sealed.append(sealed_command(Op.UPSERT, 1, 2, alts=[bytes(32)]))
    bodies = [
        encode_body(sealed),
        encode_body([opaque_command(op, 1, 2) for op in (*_OPS, Op.EXPECT_VERSION)]),
        *(encode_body([command]) for command in sealed),
        genesis.body,
        subject.control_commit(_records()[0]).body,
    ]
    yield b"\x00" + genesis.header
    for body in bodies:
        for count in (1, 4, len(_OPS) + 1):
            for variant in (1, 2, 3, 4):
                yield bytes((variant, count)) + body
    for message in _requests():
        yield from (b"\x05" + spelled for spelled in _spelled(message, REQUESTS))


def _requests() -> Iterator[Message]:
    yield subject.GENESIS
    yield messages.CreateSealed(genesis=subject.GENESIS)
    yield messages.CreateOpaque(group="group")
    yield messages.PlainCommit(
        commands=[
            messages.PlainCommand(type="Upsert", key=b"k", value=b"v"),
            messages.PlainCommand(type="ExpectVersion", version=2**53 - 1),
        ],
        source="source \U0001f600",
    )
    yield messages.BatchGet(keys=[b"k", bytes(32)], at=3)
    yield messages.Wait(logs=[messages.Watched(log_id=bytes(32), version=7)], wait=1.5)


def _spelled(message: Message, kinds: tuple[type[Message], ...]) -> Iterator[bytes]:
    for number, form in enumerate(FORMS):
        prefix = bytes((kinds.index(type(message)), number))
        yield prefix + messages.encode(message, form)


def _records() -> tuple[ControlRecord, ...]:
    epoch = Epoch(generation=1, epoch=2, key_commitment=bytes(32), prev_ct=bytes(80))
    return control_chain((epoch, Meta(meta_ct=subject.KEYS.seal_meta(b"\x01\x02"))))


def _v1_bodies() -> Iterator[bytes]:
    header = b'{"authinfo": {"customer_id": "c", "apikey": "k"}, "logName": "n"'
    yield header + b', "logGroup": null}'
    yield b"{authInfo: {customerid: 'c', apikey: \"k\",}, logName: 'it\\'s', /* so */ }// end"
    yield header + b', "fromVersion": "1", "toVersion": 9007199254740991, "waitSeconds": 60}'
    yield header + b', "orderResultsBy": "key", "paginationOptions": {"skipToKey": "YQ=="}}'
    yield header + b', "paginationOptions": {"skipToVersion": 1, "skipToCommand": "2"}, "limit": 3}'
    yield header + b"}{type:0x1,key:+1,value:[[{}]]}"
    for gap in (b"", b"\n", b' /* { " */ '):
        yield (
            header
            + b"}"
            + gap.join(
                (
                    b'{"type":"ExpectVersion","version":"7","key":null,"value":null}',
                    b'{"type":"Insert","key":"YQ==","value":"","version":null}',
                    b"{type:'Update',key:'Yg==',value:'Mg=='}",
                    b"{ type : 'Upsert' , // what's {this}\n key:'Yw==',value:'Mw==', }",
                    b'{"type":"Remove","key":"ZA==","value":"NA\\u003d="}',
                )
            )
        )


def _answers() -> Iterator[bytes]:
    entry = messages.Entry(key=_KEY[:32], sealed_key=_KEY, value=_VALUE, version=2**53 - 1)
    change = messages.KeyChange(op="set", version=1, time_ms=1, sealed_key=_KEY, value=_VALUE)
    opened = subject.opened(ctl_seq=4)
    answers: list[Message] = [
        opened,
        subject.opened(*map(subject.control_commit, _records()), ctl_seq=6),
        messages.Diff(
            from_version=0,
            to_version=1,
            changes=[
                messages.DiffChange(
                    op="add", key=_KEY[:32], sealed_key=_KEY, value=_VALUE, version=1
                )
            ],
            cursor="c",
        ),
        entry,
        messages.Entries(version=1, entries=[entry]),
        messages.History(changes=[change], cursor=None),
        messages.Versions(
            versions=[
                messages.VersionInfo(
                    version=1,
                    time_ms=limits.MAX_TIME_MS,
                    writer=bytes(32),
                    source=b"",
                    commands=1,
                    changes=1,
                    stored_bytes=1,
                    header=subject.GENESIS.header,
                )
            ],
            cursor=None,
        ),
        messages.Listing(logs=[opened.description], cursor=None),
        messages.Problem(
            type="/errors#BAD_REQUEST",
            title="Bad request",
            status=400,
            code="BAD_REQUEST",
            codeNumber=1011,
            message="no",
            details={"current_version": 1, "a": [[{}]]},
            retryable=False,
            may_have_applied=False,
            request_id="0",
        ),
    ]
    for answer in answers:
        yield from (b"\x00" + spelled for spelled in _spelled(answer, ANSWERS))
    yield b"\x00\x07\x01" + messages.encode(answers[-1], Form.JSON).replace(b"1011", b"9" * 30)
    yield b"\x00\x02\x01" + messages.encode(entry, Form.JSON).replace(
        b"9007199254740991", b"9" * 30
    )
    for record in _records():
        yield b"\x03" + record.data
    for variant in (1, 2):
        for mode, plaintext in enumerate(
            (
                b"text",
                b'{"a":[1,2.5,null,"b"]}',
                b"\x82\xa1a\x93\x01\xc0\xcb?\xf0\0\0\0\0\0\0\xa1b\x90",
                b"\xff",
            )
        ):
            yield bytes((variant + 5 * mode,)) + plaintext
    yield b"\x02\xd6\xff\x00\x00\x00\x01"  # a msgpack timestamp
    yield b"\x04" + _KEY[:32] + _KEY + _VALUE
    yield b"\x04\x01a\x00b\x00"


def _effects() -> Iterator[bytes]:
    place = Place(1, 2, 3, bytes(32))
    effects = [Effect(0, 0, True, None), Effect(1, 9, True, place), Effect(2, 20, False, place)]
    one = encode_effects(effects, [0, 9, 20])
    yield b"\x00" + one
    yield b"\x00" + one + b"|" + encode_effects(effects[:1], [0]) + b"|"
    yield b"\x01" + bytes((8, 9, 10 + 16, 0, 9 + 16, 2, 8 + 16, 0 + 16, 8 + 16))
    yield b"\x01" + bytes(range(64))
