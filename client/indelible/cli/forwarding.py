"""Deliveries of `indelible webhook listen`: signed as the service signs them, each tried once.

Posts one at a time, in the order in which they were given, and prints a line for each.
"""

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from indelible_protocol import webhooks
from indelible_protocol.ids import to_base64url
from indelible_protocol.webhooks import Key

from indelible.answers import Diff
from indelible.cli.output import Output, printable
from indelible.cli.values import name_text

if TYPE_CHECKING:
    from indelible.log import AsyncLog

ATTEMPT_SECONDS = 15.0
_ANSWER_BYTES = 4_096


class Sender:
    """Posts events to one URL, one at a time and in their order, and prints what came of it."""

    def __init__(self, url: str, key: Key, output: Output) -> None:
        self._url = url
        self._key = key
        self._output = output
        self._turn = asyncio.Lock()
        self._webhook_id = f"wh_{os.urandom(8).hex()}"

    @asynccontextmanager
    async def connected(self) -> "AsyncIterator[None]":
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=ATTEMPT_SECONDS)
        cookies = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(
            timeout=timeout, cookie_jar=cookies, trust_env=False, auto_decompress=False
        ) as self._session:
            yield

    async def challenge(self) -> None:
        words = base64.urlsafe_b64encode(os.urandom(24)).decode()
        answer = await self._deliver(webhooks.CHALLENGE, {"challenge": words}, "challenge", {})
        if answer is not None and not _echoes(answer, words):
            self._output.note(
                '-- it must answer {"challenge": …} with the words of the challenge: until it '
                "does, the service would send it nothing --"
            )

    async def updated(self, log: "AsyncLog", diff: Diff) -> None:
        data = {
            "log": _log_id(log),
            "group": log.group,
            "fromVersion": diff.from_version,
            "toVersion": diff.to_version,
        }
        members = {"log": log.name, "from": diff.from_version, "to": diff.to_version}
        await self._deliver(webhooks.UPDATED, data, f"{data['log']}:{diff.to_version}", members)

    async def deleted(self, log: "AsyncLog") -> None:
        data = {"log": _log_id(log), "group": log.group}
        await self._deliver(webhooks.DELETED, data, f"{data['log']}:deleted", {"log": log.name})

    async def _deliver(
        self, kind: str, data: Mapping[str, Any], about: str, members: Mapping[str, Any]
    ) -> bytes | None:
        """What was answered; None if nothing was."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = json.dumps({"type": kind, "timestamp": now, "data": data}, separators=(",", ":"))
        delivery_id = f"{self._webhook_id}:{about}"
        async with self._turn:
            begin = time.perf_counter()
            outcome = await self._post(delivery_id, body.encode())
            took_ms = round((time.perf_counter() - begin) * 1000)
        self._print(delivery_id, kind, members, outcome, took_ms)
        return outcome.answer

    async def _post(self, delivery_id: str, body: bytes) -> "_Outcome":
        import aiohttp

        from indelible.transport import said

        head = webhooks.headers([self._key], delivery_id, int(time.time()), body)
        head["content-type"] = "application/json"
        try:
            async with self._session.post(
                self._url, data=body, headers=head, allow_redirects=False
            ) as response:
                try:
                    answer = await response.content.readexactly(_ANSWER_BYTES)
                except asyncio.IncompleteReadError as error:
                    answer = error.partial
                return _Outcome(status=response.status, answer=answer)
        except TimeoutError:
            return _Outcome(error=f"no answer within {ATTEMPT_SECONDS:.0f} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _Outcome(error=said(error))

    def _print(
        self,
        delivery_id: str,
        kind: str,
        members: Mapping[str, Any],
        outcome: "_Outcome",
        took_ms: int,
    ) -> None:
        status, good = outcome.status, outcome.status is not None and outcome.status // 100 == 2
        words = [
            self._output.styled(str(status or "---"), "add" if good else "bad"),
            f"{took_ms:,} ms",
            kind,
        ]
        if "log" in members:
            words.append(printable(name_text(members["log"])))
        if "to" in members:
            words.append(f"v{members['from']}..v{members['to']}")
        if outcome.error:
            words.append(printable(outcome.error))
        told = {"delivery_id": delivery_id, "type": kind, **members, "status": status}
        self._output.item("  ".join(words), {**told, "took_ms": took_ms, "error": outcome.error})
        self._output.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """`status` is None where there was no answer; `error` says why."""

    status: int | None = None
    answer: bytes | None = None
    error: str = ""


def _log_id(log: "AsyncLog") -> str:
    return to_base64url(bytes.fromhex(log.log_id))


def _echoes(answer: bytes, words: str) -> bool:
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("challenge") == words
