"""The store behaves alike on every engine that is supported: the embedded one and Debian's."""

from pathlib import Path

import pytest
from indelible_protocol.commands import LogKind

from tests.support.engines import Engine
from tests.support.laws import assert_laws
from tests.support.service import StartService, make_tenant

EXAMPLES = 25
SECRET = "s" * 40


@pytest.mark.parametrize("kind", LogKind)
async def test_laws_hold_on_each_engine(
    kind: LogKind, each_engine: Engine, start_service: StartService, tmp_path: Path
) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    service = start_service("api", "--redis", each_engine.url, "--secret-file", str(secret_file))
    service.customer_id, service.apikey = await make_tenant(each_engine.url, SECRET.encode())
    await assert_laws(kind, service, each_engine.url, examples=EXAMPLES)
