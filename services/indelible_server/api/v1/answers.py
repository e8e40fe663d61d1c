"""What a v1 answer looks like, and where its pages begin. Pure.

Diffs are indented by four spaces, in the original's order of keys; errors stand on one line.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from indelible_protocol.errors import ErrorCode

from indelible_server.api.v1.body import Pagination
from indelible_server.store.entries import ChangedEntry
from indelible_server.store.nets import Position
from indelible_server.store.places import index_of, place_behind, version_of

_ORIGINAL_CODES = {
    ErrorCode.FORGOTTEN_VERSION: ErrorCode.NONEXISTENT_VERSION,
    ErrorCode.LOG_REPLACED: ErrorCode.NONEXISTENT_LOG,
}


def page_start(options: Pagination) -> Position | None:
    """Where the page begins that the options ask for; None: with the first change."""
    skips = options.skips_remove
    if options.skip_to_key is not None:
        return Position(bytes(options.skip_to_key), skips)
    if options.skip_to_version is not None:
        place = place_behind(int(options.skip_to_version), int(options.skip_to_command))
        return Position(place, skips)
    return None


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


def next_page_options(rest: Position | None) -> dict[str, Any] | None:
    """Options of the page that begins at `rest`; None if there is none."""
    if rest is None:
        return None
    return {
        "skipToKey": b64encode(rest.at).decode() if isinstance(rest.at, bytes) else None,
        "removeAlreadySeen": rest.adds,
        "skipToVersion": version_of(rest.at) if isinstance(rest.at, int) else None,
        "skipToCommand": index_of(rest.at) if isinstance(rest.at, int) else None,
    }


def encode_error(code: ErrorCode, message: str, details: Mapping[str, Any]) -> tuple[int, bytes]:
    """HTTP status and body, with the code that the original's clients know."""
    code = _ORIGINAL_CODES.get(code, code)
    error = {"code": code.name, "codeNumber": code.number, "message": message, "details": details}
    return code.http_status, json.dumps(error).encode()
