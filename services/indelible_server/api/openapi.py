"""The API document (OpenAPI 3.1) and its page, made of what validates requests.

`python -m indelible_server.api.openapi > client/openapi.json` writes the copy in the tree.
"""

import html
import json
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web
from indelible_protocol import messages
from indelible_protocol.errors import ErrorCode
from indelible_protocol.messages import Form, Message

from indelible_server.api.parameters import Parameter
from indelible_server.api.routes import OPERATIONS, Operation
from indelible_server.api.streaming import LINES

DOCUMENT_PATH = "/v2/openapi.json"
PAGE_PATH = "/v2/docs"
_REF = "#/components/schemas/{name}"

# What every operation may end with.
_COMMON = (
    ErrorCode.BAD_REQUEST,
    ErrorCode.BAD_API_KEY,
    ErrorCode.NO_SUCH_ROUTE,
    ErrorCode.RATE_LIMITED,
    ErrorCode.OVERLOADED,
    ErrorCode.INTERNAL_ERROR,
)
_WITH_BODY = (ErrorCode.TOO_LARGE, ErrorCode.UNSUPPORTED_MEDIA, ErrorCode.REQUEST_TIMEOUT)
_PATH_PARAMETERS = {
    "name": "name token (sealed) or name (opaque), in unpadded base64url",
    "log_id": "log id, in unpadded base64url",
    "key": "key token (sealed) or key (opaque), in unpadded base64url",
    "webhook_id": "webhook id",
}
_DATABASE = Parameter(
    name="Indelible-Database",
    description="database of the tenant",
    schema={"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$", "default": "default"},
)
_ANSWER_HEADERS = {
    "Indelible-Version": "the log's current version, where the answer is about one log",
    "Indelible-Incarnation": "how often a log of this name was made",
    "Indelible-Interval": "what to send as `interval` next, where it was sent",
    "Indelible-Request-Id": "names the request in the service's log",
}


@cache
def document() -> dict[str, Any]:
    kinds = _kinds()
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    described: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        described.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Indelible",
            "version": version("indelible"),
            "description": "The native API. Bytes are base64 in JSON and binary in msgpack. What "
            "the bytes mean is in client/PROTOCOL.md; the original protocol (POST /v1/log/create, "
            "update, diff) takes lenient JSON and is described there too.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": described,
        "security": [{"apikey": []}],
        "components": {
            "schemas": components,
            "securitySchemes": {"apikey": {"type": "http", "scheme": "bearer"}},
        },
    }


def _kinds() -> list[type[Message]]:
    kinds: dict[type[Message], None] = {messages.Problem: None}
    for operation in OPERATIONS:
        for kind in (*operation.bodies, *operation.answers.values()):
            if kind is not None:
                kinds[kind] = None
    return list(kinds)


def _described(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": [
            *_path_parameters(operation.path),
            *(_parameter(each, "query") for each in operation.query),
            *(_parameter(each, "header") for each in (*operation.headers, _DATABASE)),
        ],
        "responses": _responses(operation),
    }
    if operation.bodies:
        refs = [{"$ref": _REF.format(name=kind.__name__)} for kind in operation.bodies]
        schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
        found["requestBody"] = {
            "required": True,
            "content": {form.value: {"schema": schema} for form in reversed(Form)},
        }
    return found


def _path_parameters(path: str) -> Iterable[dict[str, Any]]:
    for name, description in _PATH_PARAMETERS.items():
        if f"{{{name}}}" in path:
            yield {
                "name": name,
                "in": "path",
                "required": True,
                "description": description,
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
            }


def _parameter(parameter: Parameter, place: str) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": place,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _responses(operation: Operation) -> dict[str, Any]:
    found: dict[int, Any] = {}
    for status, kind in operation.answers.items():
        found[status] = {"description": _STATUS[status], "headers": _headers(_ANSWER_HEADERS)}
        if kind is not None:
            schema = {"$ref": _REF.format(name=kind.__name__)}
            found[status]["content"] = {form.value: {"schema": schema} for form in reversed(Form)}
    if operation.streams:
        found[200]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    if operation.lines:
        found[200]["content"][LINES] = {"schema": {"type": "string"}}
    by_status: dict[int, list[ErrorCode]] = {}
    codes = (*_COMMON, *operation.errors, *(_WITH_BODY if operation.bodies else ()))
    for code in dict.fromkeys(codes):
        by_status.setdefault(code.http_status, []).append(code)
    problem = {"$ref": _REF.format(name=messages.Problem.__name__)}
    for status, same in by_status.items():
        found[status] = {
            "description": ", ".join(code.name for code in same),
            "content": {kind: {"schema": problem} for kind in messages.PROBLEM_TYPES.values()},
        }
    return {str(status): found[status] for status in sorted(found)}


_STATUS = {
    200: "done",
    201: "a log, a version or a webhook was made",
    202: "it will be done",
    304: "what the caller has, by If-None-Match, is right",
    204: "done, and nothing to tell: deleted, or the wait ended without news",
}


def _headers(described: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in described.items()
    }


def spelled() -> str:
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


@cache
def page() -> str:
    """The document for people: no script, nothing loaded from elsewhere."""
    rows = []
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            rows.append(_row(path, method, operation))
    schemas = json.dumps(document()["components"]["schemas"], indent=2, ensure_ascii=False)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Indelible: native API</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "code,pre{font:14px/1.4 monospace}h2{font:600 1rem monospace;margin-top:2rem}"
        "td{vertical-align:top;padding:0 1rem .3rem 0}</style><h1>Native API</h1>"
        f'<p>{html.escape(document()["info"]["description"])} <a href="{DOCUMENT_PATH}">OpenAPI '
        f"3.1</a>.{''.join(rows)}<h1 id=schemas>Schemas</h1><pre>{html.escape(schemas)}</pre>"
    )


def _row(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{html.escape(each['name'])}</code><td>{each['in']}"
        f"<td>{html.escape(each['description'])}"
        for each in operation["parameters"]
    )
    answers = "".join(
        f"<tr><td><code>{status}</code><td>{html.escape(answer['description'])}"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<h2 id={operation['operationId']}>{method.upper()} {html.escape(path)}</h2>"
        f"<p>{html.escape(operation['summary'])}<table>{parameters}</table><table>{answers}</table>"
    )


async def serve_document(_request: web.Request) -> web.Response:
    return web.Response(text=spelled(), content_type="application/json")


async def serve_page(_request: web.Request) -> web.Response:
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return web.Response(
        text=page(), content_type="text/html", headers={"Content-Security-Policy": policy}
    )


def routes() -> list[web.RouteDef]:
    return [web.get(DOCUMENT_PATH, serve_document), web.get(PAGE_PATH, serve_page)]


if __name__ == "__main__":
    sys.stdout.write(spelled())
