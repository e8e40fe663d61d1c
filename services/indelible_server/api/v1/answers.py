"""What a v1 answer looks like, and where its pages begin. Pure.

Diffs are indented by four spaces, in the original's order of keys; errors stand on one line.
"""

import json
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from indelible_protocol.diff import Change, Order
from indelible_protocol.errors import ErrorCode

from indelible_server.api.v1.body import Pagination
from indelible_server.store.reading import ChangedEntry

_ORIGINAL_CODES = {
    ErrorCode.FORGOTTEN_VERSION: ErrorCode.NONEXISTENT_VERSION,
    ErrorCode.LOG_REPLACED: ErrorCode.NONEXISTENT_LOG,
}


def page_start(changes: Sequence[Change], options: Pagination) -> int:
    """Index of the first change at or behind the place that the options name."""
    skips = options.skips_remove
    if options.skip_to_key is not None:
        key = bytes(options.skip_to_key), skips
        return bisect_left(changes, key, key=lambda change: (change.token, _adds(change)))
    if options.skip_to_version is not None:
        command = (int(options.skip_to_version), int(options.skip_to_command)), skips
        return bisect_left(changes, command, key=lambda change: (_command(change), _adds(change)))
    return 0


def encode_diff(
    from_version: int, to_version: int, page: Sequence[ChangedEntry], next_options: Any
) -> bytes:
    answer = {
        "fromVersion": from_version,
        "toVersion": to_version,
        "page": [
            {
                "change": "Add" if changed.op == "add" else "Remove",
                "entry": {
                    "key": b64encode(changed.entry.key).decode(),
                    "value": b64encode(changed.entry.value).decode(),
                },
                "version": changed.entry.version,
            }
            for changed in page
        ],
        "nextPageOptions": next_options,
    }
    return json.dumps(answer, indent=4).encode()


def next_page_options(following: Sequence[Change], order: Order) -> dict[str, Any] | None:
    """Options of the page that begins with the first of `following`; None if there is none."""
    if not following:
        return None
    first = following[0]
    version, command = _command(first) if order == "command" else (None, None)
    return {
        "skipToKey": b64encode(first.token).decode() if order == "key" else None,
        "removeAlreadySeen": _adds(first),
        "skipToVersion": version,
        "skipToCommand": command,
    }


def encode_error(code: ErrorCode, message: str, details: Mapping[str, Any]) -> tuple[int, bytes]:
    """HTTP status and body, with the code that the original's clients know."""
    code = _ORIGINAL_CODES.get(code, code)
    error = {"code": code.name, "codeNumber": code.number, "message": message, "details": details}
    return code.http_status, json.dumps(error).encode()


def _adds(change: Change) -> bool:
    return change.op == "add"


def _command(change: Change) -> tuple[int, int]:
    return change.last_version, change.last_index
