"""Nothing that only members may read is ever on the server's disk or in its log lines."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import indelible
import pytest
from indelible import Insert, Profile, Remove, Upsert

from tests.support.service import SERVER, Service, StartService

CANARY = "canary-7f3a"


def places(service: Service, data: Path) -> Iterator[tuple[str, bytes]]:
    yield "the log", service.log_file.read_bytes()
    for path in data.rglob("*"):
        if path.is_file() and path.name != "secret":
            yield str(path.relative_to(data)), path.read_bytes()


def test_no_plaintext_and_no_key_is_in_the_store_or_the_log(
    start_service: StartService, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    service = start_service("all", "--data", str(data), "--log-level", "debug")
    made = subprocess.run(
        [*SERVER, "tenant", "create", "acme", "--data", str(data)], capture_output=True, check=True
    )
    credentials = json.loads(made.stdout)
    master_key = os.urandom(32)
    encoded = base64.b64encode(master_key).decode()
    profile = Profile(**credentials, master_key_base64=encoded)
    with indelible.Client(profile) as client:
        log = client.log([CANARY, "name"], create=True)
        log.set(f"{CANARY} key", f"{CANARY} value", source=f"{CANARY} source")
        log.update([Upsert(f"{CANARY} key", {CANARY: 1}), Remove(f"{CANARY} other", CANARY)])
        with pytest.raises(indelible.ConflictError):
            log.update([Insert(f"{CANARY} key", f"{CANARY} again")])
        with pytest.raises(indelible.ConflictError):
            log.set(f"{CANARY} key", 1, expect_version=99)
        assert log.get(f"{CANARY} key") == {CANARY: 1}
        for _ in log.follow(after=0):
            break
        list(log.history(f"{CANARY} key"))
    service.stop()
    secrets = [
        CANARY.encode(),
        base64.b64encode(CANARY.encode())[:12],
        master_key,
        base64.b64encode(master_key),
        credentials["apikey"].encode(),
        credentials["apikey"].split("_", 2)[2].encode(),
    ]
    searched = 0
    for place, content in places(service, data):
        searched += len(content)
        for number, secret in enumerate(secrets):
            assert secret not in content, f"secret {number} is in {place}"
    assert searched > 4_000
    assert credentials["customer_id"].encode() in b"".join(c for _, c in places(service, data))
