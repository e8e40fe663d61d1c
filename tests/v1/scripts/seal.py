# mypy: ignore-errors
"""Seals what stands on standard input, and tells what would go over the wire."""

import base64
import json
import sys

from indelible_log import Log


def given(item):
    """Bytes stand as {"base64": …}."""
    return base64.b64decode(item["base64"]) if isinstance(item, dict) and "base64" in item else item


sealed = []
for case in json.load(sys.stdin):
    profile = {
        "customer_id": "c",
        "apikey": "k",
        "endpoint_url": "http://127.0.0.1:1",
        "master_key": base64.b64decode(case["master_key"]),
    }
    log = Log(
        given(case["name"]),
        profile,
        case["key_mode"],
        case["value_mode"],
        case["encrypt"],
        case["name_mode"],
    )
    keys = [log.key_transformer.encode(given(key)) for key in case["keys"]]
    values = [log.value_transformer.encode(given(value)) for value in case["values"]]
    assert [log.key_transformer.decode(k) for k in keys] == [given(k) for k in case["keys"]]
    assert [log.value_transformer.decode(v) for v in values] == [given(v) for v in case["values"]]
    sealed.append({"name": log.remote_name, "keys": keys, "values": values})
print(json.dumps(sealed))
