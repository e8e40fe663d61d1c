"""The server against its own document: requests drawn from the schemas, good ones and bad ones.

No 5xx, no status and no content type that the document does not name, every body as its
schema says.
"""

import base64
import json
from typing import Any

import msgpack
import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from indelible_protocol import messages
from indelible_protocol.ids import to_base64url
from indelible_protocol.messages import Form
from indelible_server.api import openapi
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.service import Service

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
UNHURRIED = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    database=None,
)
WAITS = ("0", "0.05", "61")  # a longer one would wait for nothing
KEYS = [b"a", b"b\x00c", "é".encode() * 20]

Case = schemathesis.Case[Any]

schema = schemathesis.openapi.from_dict(openapi.document())


@schemathesis.serializer(Form.MSGPACK.value)
def packed(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    data: bytes = msgpack.packb(value, datetime=False, default=str)
    return data


@schemathesis.deserializer(Form.MSGPACK.value, messages.PROBLEM_TYPES[Form.MSGPACK])
def unpacked(_context: schemathesis.DeserializationContext, response: Any) -> Any:
    """With bytes as JSON spells them, which is what the schemas describe."""
    return json.loads(msgspec.json.encode(msgpack.unpackb(response.content)))


class World:
    """A tenant with one opaque log that holds something."""

    def __init__(self, service: Service) -> None:
        self.url = service.url
        self.headers = {"Authorization": f"Bearer {service.apikey}"}
        made = self.ask("PUT", "/v2/names/dmlzaXRz?kind=opaque", {})
        self.log_id = made.headers["Location"].rpartition("/")[2]
        for value in (b"1", b"2", b""):
            commands = [{"type": "Upsert", "key": _b64(key), "value": _b64(value)} for key in KEYS]
            self.ask("POST", f"/v2/logs/{self.log_id}/commits", {"commands": commands})

    def ask(self, method: str, path: str, body: dict[str, Any]) -> requests.Response:
        answer = requests.request(
            method, self.url + path, json=body, headers=self.headers, timeout=20
        )
        answer.raise_for_status()
        return answer

    def send(self, case: Case, number: int) -> None:
        """Three in four requests are about the log that is there."""
        case.headers.update(self.headers)
        if case.headers.get("Indelible-Database") and number % 2:
            case.headers["Indelible-Database"] = "default"
        parameters = dict(case.path_parameters or {})
        if "log_id" in parameters and number % 4:
            parameters["log_id"] = self.log_id
        if "key" in parameters and number % 3:
            parameters["key"] = to_base64url(KEYS[number % len(KEYS)])
        case.path_parameters = parameters
        if "wait" in (case.query or {}):
            case.query = {**dict(case.query), "wait": WAITS[number % len(WAITS)]}
        if isinstance(case.body, dict) and "wait" in case.operation.path:
            case.body["wait"] = float(WAITS[number % len(WAITS)])
        case.call_and_validate(base_url=self.url, checks=CHECKS, timeout=20)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def world(service: Service) -> World:
    return World(service)


def examples(count: int) -> Any:
    return settings(UNHURRIED, max_examples=count)


counter = iter(range(10**9))
APART = ["deleteLog", "followLog"]  # the one needs logs to spare, the other does not end


@schema.exclude(operation_id=APART).parametrize()
@examples(25)
def test_answers_are_as_documented(case: Case, world: World) -> None:
    world.send(case, next(counter))


@pytest.mark.torture
@schema.exclude(operation_id=APART).parametrize()
@examples(500)
def test_answers_are_as_documented_500_times(case: Case, world: World) -> None:
    world.send(case, next(counter))


@schema.include(operation_id="deleteLog").parametrize()
@examples(25)
def test_deleting_is_as_documented(case: Case, world: World) -> None:
    world.send(case, 0)  # never the log that is there
