"""Deliveries are believed when they are signed, whole and of now; everything else is refused.

Checked against the vectors of Standard Webhooks and against the package `standardwebhooks`, as
signer and as verifier.
"""

import base64
import json
import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from indelible import RequestError, WebhookError, webhooks
from indelible_protocol.ids import to_base64url
from indelible_protocol.webhooks import Key, Kind, headers
from multidict import CIMultiDict
from standardwebhooks.webhooks import Webhook

NOW = 1_763_700_000
LOG_ID = bytes(range(32))
SECRET = Key(Kind.SHARED, bytes(range(100, 132)))
SIGNING = Key(Kind.SIGNING, bytes(range(32)))
DIFF = {
    "from": 5,
    "to": 7,
    "changes": [{"op": "add", "key": "AA==", "sealed_key": "AQ==", "value": "Ag==", "version": 6}],
    "cursor": None,
}


def body_of(kind: str = "log.updated", **data: Any) -> bytes:
    told = {"type": kind, "timestamp": "2025-11-21T04:00:00.250Z", "data": data}
    return json.dumps(told).encode()


def updated(**members: Any) -> bytes:
    data = {"log": to_base64url(LOG_ID), "group": "site", "fromVersion": 5, "toVersion": 7}
    return body_of(**{**data, **members})


BODY = updated()


def delivery(
    body: bytes = BODY,
    *keys: Key,
    delivery_id: str = "wh_1.log.7",
    at_seconds: int = NOW,
) -> dict[str, str]:
    return headers(list(keys or (SECRET,)), delivery_id, at_seconds, body)


def verify(head: Any, body: Any = BODY, keys: Any = None, **settings: Any) -> webhooks.Event:
    trusted = SECRET.spelled() if keys is None else keys
    return webhooks.verify(head, body, trusted, **{"now_seconds": NOW, **settings})


def refusal(*args: Any, **settings: Any) -> str:
    """The reason; the answer to give is checked too."""
    with pytest.raises(WebhookError) as caught:
        verify(*args, **settings)
    assert caught.value.http_status == (200 if caught.value.reason == "repeated" else 400)
    assert SECRET.spelled() not in str(caught.value)
    return caught.value.reason


# The vectors of the specification's own libraries: key, signature of the same text.
VECTORS = [
    (
        Key.read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
    (
        Key.read("whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="),
        "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8"
        "Ag==",
    ),
]
VECTOR_ID, VECTOR_SECONDS, VECTOR_BODY = (
    "msg_p5jXN8AQM9LWM0D4loKWxJek",
    1614265330,
    b'{"test": 2432232314}',
)


@pytest.mark.parametrize(("key", "signature"), VECTORS, ids=["v1", "v1a"])
def test_signatures_are_those_of_the_specification(key: Key, signature: str) -> None:
    head = headers([key], VECTOR_ID, VECTOR_SECONDS, VECTOR_BODY)
    assert head == {
        "webhook-id": VECTOR_ID,
        "webhook-timestamp": str(VECTOR_SECONDS),
        "webhook-signature": signature,
    }
    trusted = key.public() if key.kind is Kind.SIGNING else key
    # Signed, so the signature was found good; but it is no event.
    with pytest.raises(WebhookError, match="signed, but no event") as caught:
        verify(head, VECTOR_BODY, trusted.spelled(), now_seconds=VECTOR_SECONDS)
    assert caught.value.reason == "malformed"


IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)
SECRETS = st.binary(min_size=24, max_size=64)


@given(IDS, SECRETS, st.dictionaries(st.text(), st.text()))
def test_the_independent_library_verifies_what_is_signed_here(
    delivery_id: str, secret: bytes, data: dict[str, str]
) -> None:
    body = body_of("webhook.test", data=data)
    key = Key(Kind.SHARED, secret)
    head = headers([SECRET, key], delivery_id, int(datetime.now(UTC).timestamp()), body)
    assert Webhook(key.spelled()).verify(body, head)["data"] == {"data": data}


@given(IDS, SECRETS, st.dictionaries(st.text(), st.text()))
def test_what_the_independent_library_signs_is_verified_here(
    delivery_id: str, secret: bytes, data: dict[str, str]
) -> None:
    body = body_of("webhook.test", data=data)
    key = Key(Kind.SHARED, secret).spelled()
    now = datetime.now(UTC)  # it would sign another second, were this another zone's
    head = {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(key).sign(delivery_id, now, body.decode()),
    }
    event = webhooks.verify(head, body, key)
    assert (event.id, event.type, event.data) == (delivery_id, "webhook.test", {"data": data})


def test_an_event_tells_what_its_delivery_says() -> None:
    body = updated(diff=DIFF)
    event = verify(delivery(body, delivery_id="wh_1.abc.7", at_seconds=NOW - 4), body)
    assert (event.id, event.type) == ("wh_1.abc.7", "log.updated")
    assert (event.log_id, event.group) == (LOG_ID.hex(), "site")
    assert (event.from_version, event.to_version) == (5, 7)
    assert event.time == datetime(2025, 11, 21, 4, 0, 0, 250_000, UTC)
    assert event.sent == datetime.fromtimestamp(NOW - 4, UTC)
    assert event.diff is not None
    assert [(c.op, c.value, c.version) for c in event.diff.changes] == [("add", b"\x02", 6)]
    assert event.answer == b"{}"
    assert verify(delivery(BODY)).diff is None
    too_large = updated(diff=None)
    assert verify(delivery(too_large), too_large).diff is None


def test_events_about_no_version_have_none() -> None:
    deleted = body_of("log.deleted", log=to_base64url(LOG_ID))
    event = verify(delivery(deleted), deleted)
    assert (event.type, event.log_id, event.to_version) == ("log.deleted", LOG_ID.hex(), None)
    test = body_of("webhook.test")
    assert verify(delivery(test), test).log_id is None
    newer = body_of("log.sealed_anew", epoch=4)
    assert verify(delivery(newer), newer).data == {"epoch": 4}


def test_a_challenge_is_answered_with_its_own_words() -> None:
    body = body_of("webhook.challenge", challenge='a"b')
    event = verify(delivery(body), body)
    assert json.loads(event.answer) == {"challenge": 'a"b'}


@pytest.mark.parametrize("key", [SECRET, SIGNING], ids=["v1", "v1a"])
def test_any_altered_bit_is_refused(key: Key) -> None:
    trusted = key.public().spelled() if key.kind is Kind.SIGNING else key.spelled()
    head = delivery(BODY, key)
    verify(head, BODY, trusted)
    for n in range(len(BODY)):
        altered = BODY[:n] + bytes([BODY[n] ^ 1 << n % 8]) + BODY[n + 1 :]
        assert refusal(head, altered, trusted) == "altered"
    scheme, signature = head["webhook-signature"].split(",")
    data = base64.b64decode(signature)
    for n in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[n // 8] ^= 1 << n % 8
        spelled = base64.b64encode(flipped).decode()
        assert refusal(head | {"webhook-signature": f"{scheme},{spelled}"}, BODY, trusted)


def test_another_id_time_or_end_of_the_body_is_refused() -> None:
    head = delivery()
    assert refusal(head | {"webhook-id": "wh_1.log.8"}) == "altered"
    assert refusal(head | {"webhook-timestamp": str(NOW + 1)}) == "altered"
    assert refusal(head, BODY + b" ") == "altered"
    assert refusal(head, BODY[:-1]) == "altered"
    assert refusal(head, b"") == "altered"


def test_parts_of_the_signed_text_cannot_trade_places() -> None:
    """The full stops in an id move no byte of it into the time or the body."""
    head = delivery(delivery_id=f"wh_1.log.{NOW}")
    moved = {**head, "webhook-id": "wh_1.log", "webhook-timestamp": str(NOW)}
    # Every byte is signed; what is taken for the body is none.
    assert refusal(moved, f"{NOW}.".encode() + BODY) == "malformed"


def test_times_count_up_to_the_tolerance_and_not_beyond() -> None:
    for seconds in (-300, 0, 300):
        verify(delivery(at_seconds=NOW + seconds))
    assert refusal(delivery(at_seconds=NOW - 301)) == "old"
    assert refusal(delivery(at_seconds=NOW + 301)) == "future"
    assert refusal(delivery(at_seconds=NOW - 11), tolerance_seconds=10) == "old"
    assert refusal(delivery(at_seconds=99_999_999_999)) == "future"
    current = int(datetime.now(UTC).timestamp())
    assert verify(delivery(at_seconds=current), now_seconds=None).id


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": ""},
        {"webhook-id": "a b"},
        {"webhook-id": "é"},
        {"webhook-id": "\udce9"},
        {"webhook-id": "x" * 257},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "now"},
        {"webhook-timestamp": f"{NOW}.5"},
        {"webhook-timestamp": f"0{NOW}"},
        {"webhook-timestamp": f"-{NOW}"},
        {"webhook-timestamp": f"+{NOW}"},
        {"webhook-timestamp": f" {NOW}"},
        {"webhook-timestamp": "٣" * 10},
        {"webhook-timestamp": "9" * 400},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,AAAA " * 17},
    ],
    ids=repr,
)
def test_malformed_heads_are_refused(change: dict[str, str]) -> None:
    assert refusal(delivery() | change) == "malformed"


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_must_be_there_once(name: str) -> None:
    head = delivery()
    twice = CIMultiDict([*head.items(), (name.title(), head[name])])
    assert refusal(twice) == "malformed"
    del head[name]
    assert refusal(head) == "malformed"


def test_names_of_headers_have_no_case_and_others_do_not_matter() -> None:
    head = {name.title(): value for name, value in delivery().items()}
    verify(head | {"Content-Type": "application/json"})
    verify(CIMultiDict([*head.items(), ("via", "a"), ("via", "b")]))


@pytest.mark.parametrize(
    "signature",
    ["v1", "v1,", ",", "v1;{}", "{}", "v1,{},x", "v1,é", "v1,====", "v1a,{}", "v2,{}", "V1,{}"],
)
def test_what_is_no_signature_counts_as_none(signature: str) -> None:
    head = delivery()
    good = head["webhook-signature"]
    bad = signature.format(good.removeprefix("v1,"))
    assert refusal(head | {"webhook-signature": bad}) == "altered"
    # Beside a good one it does no harm.
    assert verify(head | {"webhook-signature": f"{bad} {good}"}).id
    assert verify(head | {"webhook-signature": f"{good} {bad}"}).id


def test_while_a_key_is_replaced_either_side_may_have_both() -> None:
    old, new = Key(Kind.SHARED, os.urandom(32)), Key(Kind.SHARED, os.urandom(32))
    other = Key(Kind.SHARED, os.urandom(32))
    both = delivery(BODY, new, old)
    assert len(both["webhook-signature"].split()) == 2
    for keys in (old.spelled(), new.spelled(), [other.spelled(), old.spelled()]):
        assert verify(both, BODY, keys).id
    assert verify(delivery(BODY, old), BODY, [new.spelled(), old.spelled()]).id
    assert refusal(both, BODY, other.spelled()) == "altered"


def test_schemes_may_be_mixed_and_are_never_taken_for_each_other() -> None:
    public = SIGNING.public()
    mixed = delivery(BODY, SECRET, SIGNING)
    assert verify(mixed, BODY, SECRET.spelled()).id
    assert verify(mixed, BODY, public.spelled()).id
    assert verify(delivery(BODY, SIGNING), BODY, [SECRET.spelled(), public.spelled()]).id
    # Who knows the public key knows what an HMAC with it would be.
    forged = delivery(BODY, Key(Kind.SHARED, public.data))
    assert refusal(forged, BODY, public.spelled()) == "altered"
    as_v1a = {"webhook-signature": forged["webhook-signature"].replace("v1,", "v1a,")}
    assert refusal(forged | as_v1a, BODY, public.spelled()) == "altered"


def test_a_delivery_that_was_dealt_with_is_refused_when_it_comes_again() -> None:
    seen = webhooks.Seen()
    event = verify(delivery(), seen=seen)
    assert verify(delivery(), seen=seen) == event  # it failed before it was dealt with
    seen.add(event.id)
    assert refusal(delivery(), seen=seen) == "repeated"
    assert refusal(delivery(at_seconds=NOW + 60), seen=seen) == "repeated"
    assert refusal(delivery(), seen={event.id}) == "repeated"
    assert verify(delivery(delivery_id="wh_1.log.8"), seen=seen).id
    # Who cannot sign learns nothing of what was seen.
    assert refusal(delivery(), BODY + b" ", seen=seen) == "altered"


def test_what_was_seen_takes_bounded_room_and_the_oldest_leaves() -> None:
    seen = webhooks.Seen(most=3)
    for n in (1, 2, 3, 1, 4):
        seen.add(str(n))
    assert [n for n in range(1, 5) if str(n) in seen] == [1, 3, 4]
    assert len(seen) == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b'{"type": "webhook.test"}',
        b'{"type": "", "timestamp": "2025-11-21T04:00:00Z", "data": {}}',
        b'{"type": "webhook.test", "timestamp": "2025-11-21T04:00:00", "data": {}}',
        b'{"type": "webhook.test", "timestamp": 5, "data": {}}',
        b'{"type": "webhook.test", "timestamp": "2025-11-21T04:00:00Z", "data": []}',
        b'{"a":' * 5_000,
        body_of("webhook.challenge"),
        body_of("webhook.challenge", challenge=5),
        body_of("log.deleted"),
        updated(log="AAAA"),
        updated(log=base64.b64encode(LOG_ID).decode()),
        updated(fromVersion=-1),
        updated(fromVersion=None),
        updated(toVersion="7"),
        updated(toVersion=2**53),
        updated(diff={}),
        updated(diff=DIFF | {"from": 4}),
        updated(diff=DIFF | {"cursor": "x"}),
        updated(diff=DIFF | {"changes": [{"op": "add", "key": "no base64"}]}),
    ],
    ids=lambda body: body[:60].decode(errors="replace"),
)
def test_what_is_signed_and_still_no_event_is_refused(body: bytes) -> None:
    assert refusal(delivery(body), body) == "malformed"


@pytest.mark.parametrize(
    "keys",
    [
        "",
        [],
        SECRET.spelled().removeprefix("whsec_"),
        "whsec_",
        "whsec_****",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whpk_" + base64.b64encode(b"x" * 31).decode(),
        [SECRET.spelled(), "whpk_é"],
        SIGNING.spelled(),
    ],
    ids=repr,
)
def test_a_key_that_is_none_is_the_callers_mistake_and_is_not_repeated(keys: Any) -> None:
    with pytest.raises(RequestError) as caught:
        verify(delivery(), BODY, keys)
    for key in [keys] if isinstance(keys, str) else keys:
        assert len(key) < 8 or key[6:] not in str(caught.value)


def test_a_body_that_was_parsed_already_is_the_callers_mistake() -> None:
    for body in (BODY.decode(), json.loads(BODY), None):
        with pytest.raises(RequestError, match="bytes, as they came"):
            verify(delivery(), body)
    assert verify(delivery(), memoryview(BODY)).id


def test_keys_and_sealed_diffs_are_not_shown_by_repr() -> None:
    assert "data" not in repr(SECRET)
    body = updated(diff=DIFF)
    assert "changes" not in repr(verify(delivery(body), body))


def test_an_error_keeps_its_reason_through_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(WebhookError("late", reason="old")))
    assert (error.reason, error.http_status) == ("old", 400)


def test_a_receiver_loads_no_http_client() -> None:
    code = "from indelible import webhooks; import sys; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
