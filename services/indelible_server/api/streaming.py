"""Answers that go on for long: pages one after the other, as fast as they are read.

A page that is not read for a while ends the answer, and so does a failure, whichever: an answer
that is cut off has no last chunk, nothing else behind what was sent, and every page told how to go
on. Knows nothing of what the pages hold.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import structlog
from aiohttp import web
from indelible_protocol.messages import Form

from indelible_server.api.messages import answer_form
from indelible_server.api.middlewares import STREAMED
from indelible_server.api.request_ids import ID, REQUEST_ID
from indelible_server.store.errors import Refusal

log = structlog.get_logger("indelible_server.api")

LINES = "application/jsonl"
UNREAD_SECONDS = 30.0


async def send(
    request: web.Request, pages: AsyncGenerator[bytes, None], headers: Mapping[str, str]
) -> web.StreamResponse:
    """Sends them all. Until the first one is there, a failure is an answer of its own.

    Raises:
        Exception: whatever comes before anything was sent.
    """
    async with aclosing(pages):
        page = await anext(pages)
        response = web.StreamResponse(headers=headers)
        form = answer_form(request)
        response.content_type = form.value if form is Form.MSGPACK else LINES
        response.headers[REQUEST_ID] = request[ID]
        response.headers["X-Accel-Buffering"] = "no"  # a proxy hands on what it has
        request[STREAMED] = True
        await response.prepare(request)
        try:
            while True:
                async with asyncio.timeout(UNREAD_SECONDS):
                    await response.write(page)
                page = await anext(pages)
        except StopAsyncIteration:
            await response.write_eof()
        except ConnectionError:
            pass  # nobody is there to be told
        except (Refusal, TimeoutError) as error:
            log.warning("stream.cut_off", request_id=request[ID], reason=type(error).__name__)
            _cut(request)
        except Exception:
            log.exception("stream.failed", request_id=request[ID])
            _cut(request)
    return response


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
