"""Fixtures for the original protocol: both libraries, and a profile for either."""

import base64
import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from tests.v1 import libraries
from tests.v1.libraries import Library


@pytest.fixture(scope="session")
def published(pytestconfig: pytest.Config) -> Library:
    """The published client, unmodified, in a virtual environment of its own."""
    return libraries.published(pytestconfig.cache.mkdir("published-clients"))


@pytest.fixture(scope="session")
def ours() -> Library:
    return libraries.ours()


@pytest.fixture(params=["published", "ours"])
def library(request: pytest.FixtureRequest) -> Library:
    found: Library = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def profile(tmp_path: Path, service: Any) -> Path:
    """A profile file, as a user of the original has it."""
    path = tmp_path / "profile.json"
    path.write_text(
        json.dumps(
            {
                "endpoint_url": service.url,
                "customer_id": service.customer_id,
                "apikey": service.apikey,
                "master_key_base64": base64.b64encode(secrets.token_bytes(32)).decode(),
            }
        )
    )
    return path


@pytest.fixture
def log_name() -> str:
    """A name that no other test uses."""
    return f"log {secrets.token_hex(8)}"
