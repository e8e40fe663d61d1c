"""The API document is the one in the tree, names every route, and is there for people too."""

import json
from pathlib import Path

import aiohttp
from indelible_protocol.errors import ErrorCode
from indelible_server.api import openapi
from indelible_server.api.v1.handlers import routes as v1_routes

from tests.hostile.test_borders import PUBLIC, ROUTES
from tests.support.service import Service

COPY = Path(__file__).parents[2] / "client/openapi.json"


def test_the_copy_in_the_tree_is_what_the_definitions_say() -> None:
    assert COPY.read_text() == openapi.spelled(), (
        "python -m indelible_server.api.openapi > client/openapi.json"
    )


async def test_the_service_serves_it_and_a_page_that_loads_nothing(service: Service) -> None:
    async with aiohttp.ClientSession(service.url) as http:
        async with http.get(openapi.DOCUMENT_PATH) as answer:
            assert await answer.json() == json.loads(COPY.read_text())
        async with http.get(openapi.PAGE_PATH) as answer:
            page = await answer.text()
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "<script" not in page
    assert "//" not in page.replace("https://", "")
    for methods in openapi.document()["paths"].values():
        for operation in methods.values():
            assert f"id={operation['operationId']}" in page


def test_every_route_of_the_native_api_is_in_it_and_no_other() -> None:
    documented = {
        (method.upper(), path)
        for path, methods in openapi.document()["paths"].items()
        for method in methods
    }
    others = {(route.method, route.path) for route in v1_routes()}
    served = {(route.method, route.path) for route in ROUTES if route.path not in PUBLIC}
    assert served == documented | others


def test_every_code_that_an_operation_may_answer_is_one_of_the_table() -> None:
    words = {code.name for code in ErrorCode}
    for methods in openapi.document()["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert set(answer["description"].split(", ")) <= words
