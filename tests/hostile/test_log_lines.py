"""One line of the log is one JSON object, whatever was sent; and it tells no secret."""

import json
import subprocess
import sys
from typing import Any

from tests.hostile.wire import exchange, request
from tests.support.polling import until
from tests.support.service import Service

TEXTS = [
    "\r\n", "\n{\"event\": \"forged\"}\n", "\x1b[31mred\x1b[0m", "\"", "\\", "\"}{", "\0",
    "\x85\u2028\u2029", "\ud800", "\udc00\ud800", "x" * (1 << 20), "\x7f\x9b", "%s %n %d",
    "{0.__class__}", "</script>",
]  # fmt: skip
SECRET = "ik_0123456789abcdef_Zm9vYmFy-this-is-told-to-nobody"
LOGGING = f"""
import asyncio, logging
import structlog
from indelible_server.telemetry import configure_logging

configure_logging("debug", "json")
log = structlog.get_logger("test")
texts = {TEXTS!r} + ["{SECRET}", "a {SECRET}\\r\\n{SECRET}"]
for text in texts:
    raw = text.encode(errors="replace")
    nested = {{"key": text, text: [text]}}
    log.info("a.told", route=text, reasons=[text], nested=nested, raw=raw, body=text, apikey=text)
    log.info(text)
    try:
        try:
            raise KeyError(text)
        except KeyError as error:
            raise ValueError(text) from error
    except ValueError:
        log.exception("a.failed", route=text)
    for name in ("aiohttp.server", "asyncio"):
        logging.getLogger(name).error("%s failed", text, exc_info=ValueError(text))
        logging.getLogger(name).error(text)
print(len(texts) * 7)
"""


def objects(raw: bytes) -> list[dict[str, Any]]:
    assert raw.endswith(b"\n")
    lines = raw[:-1].split(b"\n")
    found = [json.loads(line) for line in lines]
    assert all(isinstance(each, dict) and each["event"] for each in found)
    return found


def test_every_string_that_is_logged_stays_in_its_line() -> None:
    done = subprocess.run(
        [sys.executable, "-"], input=LOGGING.encode(), capture_output=True, check=True
    )
    found = objects(done.stderr)
    assert len(found) == int(done.stdout)
    assert b"told-to-nobody" not in done.stderr
    assert b"\x1b" not in done.stderr
    assert max(map(len, done.stderr.split(b"\n"))) < 200_000
    assert "forged" not in {each["event"] for each in found}


async def test_requests_forge_no_line(service: Service) -> None:
    offset = service.log_file.stat().st_size
    key = f"Authorization: Bearer {service.apikey}"
    for raw in (
        request("GET", "/v2/logs%0d%0a%7b%22event%22:%22forged%22%7d", key),
        request("GET", "/v2/logs?%0d%0a=%1b%5b31m", key),
        request("GET", "/v2/logs", key, "Indelible-Database: \x1b[31m\u2028"),
        request("GET", "/v2/logs", key, f"X-Forged: {SECRET}\n{{}}"),
        request("G" * 7_000, "/v2/logs", key),
        request("GET", "/v2/logs", f"Authorization: Bearer {SECRET}"),
        request("GET", f"/v2/logs/{SECRET}", key),
        request("POST", "/v1/log/create", body=b'{"logName":"\\r\\n{\\"event\\":\\"forged\\"}"}'),
    ):
        await exchange(service.url, raw.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))

    def told() -> int:
        events = [each["event"] for each in objects(service.log_file.read_bytes()[offset:])]
        return events.count("request.answered") + events.count("request.unreadable")

    await until(lambda: told() == 8)  # lines come in groups
    logged = service.log_file.read_bytes()[offset:]
    assert b"told-to-nobody" not in logged
    assert b"\x1b" not in logged
    assert b"GGGG" not in logged
