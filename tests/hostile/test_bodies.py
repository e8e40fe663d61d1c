"""Malformed bodies on every route that takes one: refused with a code, cheaply, telling nothing."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import psutil
import pytest
from indelible_protocol import limits, messages
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import to_base64url
from indelible_protocol.messages import Form
from indelible_server.api.v1 import body as v1

from tests.hostile import bodies, v1_bodies
from tests.hostile.bodies import CANARY, JSON, MSGPACK, Place, places
from tests.support.service import Service
from tests.support.writers import SealedWriter

AT_ONCE = 16
MOST_CUTS = 150
MAX_GROWTH_BYTES = 100 << 20
SECRETS = (CANARY, base64.b64encode(CANARY.encode()).decode()[:16])

PLACES = places(SealedWriter(bytes(32), max_lag=limits.MAX_LAG))
Sent = tuple[str, str, str, bytes]  # what is wrong, method, path, body


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A service with a log of each kind."""

    service: Service
    http: aiohttp.ClientSession
    places: dict[str, Place]
    log: str
    sealed: str

    def sent(self, place: str, what: str, body: bytes) -> Sent:
        words = place if place in self.places else f"{place} json"
        method, path, _, _ = self.places[words]
        return f"{place}: {what}", method, self.path(path), body

    def path(self, path: str) -> str:
        return path.format(log=self.log, sealed=self.sealed)


@pytest.fixture
async def subject(service: Service) -> AsyncIterator[Subject]:
    headers = {"Authorization": f"Bearer {service.apikey}"}
    fresh = places(SealedWriter(os.urandom(32), max_lag=limits.MAX_LAG))
    async with aiohttp.ClientSession(service.url, headers=headers) as http:

        async def make(place: str) -> str:
            method, path, good, _ = fresh[place]
            content = {"Content-Type": MSGPACK}
            async with http.request(
                method, path, data=bodies.packed(good), headers=content
            ) as answer:
                assert answer.status == 201, await answer.text()
                made = messages.decode(await answer.read(), messages.Opened, Form.MSGPACK)
            return to_base64url(made.description.log_id)

        yield Subject(
            service=service,
            http=http,
            places=fresh,
            log=await make("create msgpack"),
            sealed=await make("genesis msgpack"),
        )


async def faults_of(subject: Subject, sent: Iterator[Sent]) -> tuple[int, list[str]]:
    """How many were sent, and what is wrong with the answers: none should be."""
    faults: list[str] = []
    count = 0
    lock = asyncio.Semaphore(AT_ONCE)

    async def send(what: str, method: str, path: str, body: bytes) -> None:
        nonlocal count
        form = MSGPACK if what.split(":")[0].endswith("msgpack") else JSON
        async with (
            lock,
            subject.http.request(method, path, data=body, headers={"Content-Type": form}) as answer,
        ):
            text = await answer.read()
            count += 1
            fault = _fault(answer, text, (*SECRETS, subject.service.apikey))
            if fault:
                faults.append(f"{what}: {fault}: {text[:200]!r}")

    async with asyncio.TaskGroup() as tasks:
        for each in sent:
            tasks.create_task(send(*each))
    return count, faults


def _fault(answer: aiohttp.ClientResponse, body: bytes, secrets: tuple[str, ...]) -> str:
    if not 400 <= answer.status < 500:
        return f"answered {answer.status}"
    form = Form.MSGPACK if answer.content_type.endswith("msgpack") else Form.JSON
    told: dict[str, Any] = {}
    if answer.content_type in messages.PROBLEM_TYPES.values():
        problem = messages.decode(body, messages.Problem, form)
        told = {"code": problem.code, "codeNumber": problem.codeNumber}
        if problem.status != answer.status or problem.may_have_applied:
            return "an answer at odds with itself"
    elif answer.content_type == JSON:
        told = msgspec.json.decode(body)
    if not told.get("code") or not told.get("codeNumber"):
        return "no code"
    if len(body) > 2_000:
        return f"an answer of {len(body)} bytes"
    return next((f"tells {secret}" for secret in secrets if secret.encode() in body), "")


def native_bodies(subject: Subject) -> Iterator[Sent]:
    for name, place in subject.places.items():
        faulty = bodies.json_faults if place.form == JSON else bodies.msgpack_faults
        for what, body in faulty(place.spelled()):
            yield subject.sent(name, what, body)
    for where, what, body in (
        *bodies.version_faults(),
        *bodies.shape_faults(subject.places["sealed msgpack"].good),
    ):
        yield subject.sent(where, what, body)


def v1_requests(subject: Subject) -> Iterator[Sent]:
    header = v1_bodies.header(subject.service.customer_id, subject.service.apikey)
    for verb, body in v1_bodies.faults(header):
        yield f"v1 {verb}: {body[-60:]!r}", "POST", f"/v1/log/{verb}", body


async def test_malformed_bodies_are_refused_with_a_code_and_tell_nothing(subject: Subject) -> None:
    process = psutil.Process(subject.service.pid)
    before = process.memory_info().rss
    count, faults = await faults_of(subject, native_bodies(subject))
    of_v1, v1_faults = await faults_of(subject, v1_requests(subject))
    assert not faults + v1_faults
    assert count > 900
    assert of_v1 > 90
    assert process.memory_info().rss - before < MAX_GROWTH_BYTES
    async with subject.http.get(f"/v2/logs/{subject.log}") as answer:
        assert (await answer.json())["version"] == 0


async def test_what_is_malformed_is_accepted_once_it_is_mended(subject: Subject) -> None:
    for name, place in subject.places.items():
        headers = {"Content-Type": place.form}
        async with subject.http.request(
            place.method, subject.path(place.path), data=place.spelled(), headers=headers
        ) as answer:
            expected = (412,) if "conditions" in name else (200, 201)
            assert answer.status in expected, f"{name}: {await answer.text()}"


async def test_bodies_cut_off_anywhere_are_refused(subject: Subject) -> None:
    def cut() -> Iterator[Sent]:
        for name, place in subject.places.items():
            whole = place.spelled()
            for end in range(0, len(whole), max(1, len(whole) // MOST_CUTS)):
                yield subject.sent(name, f"cut at {end}", whole[:end])
        header = v1_bodies.header(subject.service.customer_id, subject.service.apikey)
        for verb in ("create", "diff", "update"):
            for end in range(len(header)):
                yield f"v1 {verb}: cut at {end}", "POST", f"/v1/log/{verb}", header[:end]

    count, faults = await faults_of(subject, cut())
    assert not faults
    assert count > 1_500


@pytest.mark.parametrize("name", PLACES)
def test_no_body_cut_off_at_any_byte_is_a_message(name: str) -> None:
    place = PLACES[name]
    kind: Any = {
        "create": messages.CreateOpaque,
        "keys": messages.BatchGet,
        "wait": messages.Wait,
        "sealed": messages.Commit,
        "genesis": messages.CreateSealed,
    }.get(name.split()[0], messages.PlainCommit)
    whole = place.spelled()
    messages.decode(whole, kind, Form(place.form))
    for end in range(len(whole)):
        with pytest.raises(ProtocolError):
            messages.decode(whole[:end], kind, Form(place.form))


def test_v1_commands_cut_off_between_them_alone_are_whole() -> None:
    header = v1_bodies.header("c", "k")
    whole, ends = header, {len(header)}
    for command in v1_bodies.COMMANDS:
        whole += command
        ends.add(len(whole))
    for end in range(len(whole) + 1):
        try:
            v1.decode_commands(v1.decode_update(whole[:end])[1])
        except ProtocolError:
            assert end not in ends
        else:
            assert end in ends


async def test_a_sealed_commit_with_any_part_cut_off_or_altered_is_refused(
    subject: Subject,
) -> None:
    good = subject.places["sealed msgpack"].good

    def altered() -> Iterator[Sent]:
        for part, data in good.items():
            step = max(1, len(data) // 40)
            for at in range(0, len(data), step):
                flipped = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
                for what, bad in (("cut", data[:at]), ("flipped", flipped)):
                    body = bodies.packed({**good, part: bad})
                    yield subject.sent("sealed msgpack", f"{part} {what} at {at}", body)

    count, faults = await faults_of(subject, altered())
    assert not faults
    assert count > 200
    async with subject.http.get(f"/v2/logs/{subject.sealed}") as answer:
        assert (await answer.json())["version"] == 0


@pytest.mark.parametrize("content_type", [
    "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "application/json; charset=utf-16", "application/json; charset=latin-1", "application/jsonx",
    "application/problem+json", "application/x-msgpack", "application/cbor", "*/*", "\\xff",
    "application/json, application/msgpack", "application/" + "j" * 8_000,
])  # fmt: skip
async def test_another_content_type_is_refused(subject: Subject, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    for name in ("create json", "upsert json", "keys json", "wait json", "sealed json"):
        place = subject.places[name]
        async with subject.http.request(
            place.method, subject.path(place.path), data=place.spelled(), headers=headers
        ) as answer:
            assert answer.status == 415, f"{name}: {await answer.text()}"
            assert (await answer.json(content_type=None))["code"] == "UNSUPPORTED_MEDIA"
