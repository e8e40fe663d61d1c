"""Commits and diffs keep the laws of `tests.support.laws` on the embedded engine."""

import os
from pathlib import Path

import pytest
from indelible_protocol.commands import LogKind
from indelible_server.embedded import running_engine_url

from tests.support.laws import assert_laws
from tests.support.service import Service

EXAMPLES = int(os.environ.get("INDELIBLE_LAW_EXAMPLES", "500"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", LogKind)
async def test_commits_and_diffs_keep_the_laws(kind: LogKind, service: Service) -> None:
    url = await running_engine_url(Path(service.arguments[-1]))
    assert url is not None
    await assert_laws(kind, service, url, examples=EXAMPLES)
