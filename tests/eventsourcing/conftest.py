"""Every test has logs of its own, in the tenant of its worker.

The environment says where: the factory reads nothing else.
"""

import base64
import os
import uuid

import pytest

from tests.eventsourcing.factories import tenant_of
from tests.support.service import Service


@pytest.fixture(scope="session")
def variables(shared_service: Service) -> dict[str, str]:
    """A profile, as the environment spells it."""
    customer_id, apikey = tenant_of(shared_service)
    return {
        "PERSISTENCE_MODULE": "indelible.eventsourcing",
        "INDELIBLE_ENDPOINT_URL": shared_service.url,
        "INDELIBLE_CUSTOMER_ID": customer_id,
        "INDELIBLE_APIKEY": apikey,
        "INDELIBLE_MASTER_KEY_BASE64": base64.b64encode(os.urandom(32)).decode(),
    }


@pytest.fixture(autouse=True)
def environment(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("INDELIBLE_LOG_NAME", f"test-{uuid.uuid4()}")
