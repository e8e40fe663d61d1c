"""The id of a request: how it is made, and under which names it is kept and told."""

import secrets
from itertools import count

from aiohttp import web

REQUEST_ID = "indelible-request-id"
ID = web.RequestKey("id", str)

_PROCESS = secrets.token_hex(4)
_numbers = count(secrets.randbelow(1 << 16))


def new_request_id() -> str:
    """16 hex digits, unique beyond doubt within a process and in all likelihood among several."""
    return f"{_PROCESS}{next(_numbers) & 0xFFFF_FFFF:08x}"
