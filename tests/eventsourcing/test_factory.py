"""What the factory reads of the environment, what its errors become, what stays sealed."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from eventsourcing.persistence import (
    InfrastructureFactory,
    OperationalError,
    ProgrammingError,
    StoredEvent,
)
from eventsourcing.utils import Environment
from indelible import Profile
from indelible.eventsourcing import Factory

from tests.eventsourcing.factories import make_factory
from tests.support.ports import free_port
from tests.support.service import Service


@pytest.fixture
def factory() -> Iterator[Factory]:
    factory = make_factory()
    yield factory
    factory.close()


def event(topic: str = "topic", state: bytes = b"state") -> StoredEvent:
    return StoredEvent(uuid4(), 1, topic, state)


def profile_in(variables: dict[str, str], folder: Path) -> Path:
    profile = Profile(
        endpoint_url=variables["INDELIBLE_ENDPOINT_URL"],
        customer_id=variables["INDELIBLE_CUSTOMER_ID"],
        apikey=variables["INDELIBLE_APIKEY"],
        master_key_base64=variables["INDELIBLE_MASTER_KEY_BASE64"],
    )
    return profile.save(folder / "profile.json")


def test_a_profile_may_be_a_file_or_four_variables(
    factory: Factory, variables: dict[str, str], tmp_path: Path
) -> None:
    factory.application_recorder().insert_events([event()])
    by_file = InfrastructureFactory.construct(
        Environment(
            "Shop",
            {
                "PERSISTENCE_MODULE": "indelible.eventsourcing",
                "INDELIBLE_LOG_NAME": factory.env["INDELIBLE_LOG_NAME"],
                "INDELIBLE_PROFILE": str(profile_in(variables, tmp_path)),
            },
        )
    )
    assert by_file.application_recorder().max_notification_id() == 1
    by_file.close()


def test_a_variable_may_be_for_one_application_alone() -> None:
    with pytest.raises(OSError, match="INDELIBLE_ENDPOINT_URL"):
        make_factory("Shop", SHOP_INDELIBLE_ENDPOINT_URL="")
    make_factory("Other", SHOP_INDELIBLE_ENDPOINT_URL="").close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"INDELIBLE_MASTER_KEY_BASE64": "short"},
        {"INDELIBLE_ENDPOINT_URL": "ftp://127.0.0.1"},
        {"INDELIBLE_ENDPOINT_URL": "http://192.0.2.1"},
        {"INDELIBLE_ENDPOINT_URL": "https://127.0.0.1", "INDELIBLE_CA_FILE": "/absent"},
        {"INDELIBLE_TIMEOUT_SECONDS": "soon"},
        {"INDELIBLE_TIMEOUT_SECONDS": "0"},
        {"INDELIBLE_ALLOW_PLAIN_HTTP": "perhaps"},
    ],
    ids=str,
)
def test_variables_that_cannot_be_used_say_so_and_quote_no_key(wrong: dict[str, str]) -> None:
    with pytest.raises(OSError, match=r"\w") as caught:
        make_factory(**wrong)
    assert "short" not in str(caught.value)


def test_applications_of_two_names_have_two_logs(factory: Factory) -> None:
    other = make_factory("Bank")
    nameless = make_factory("")
    factory.application_recorder().insert_events([event()])
    assert other.application_recorder().max_notification_id() is None
    assert nameless.application_recorder().max_notification_id() is None
    other.close()
    nameless.close()


def test_events_snapshots_and_tracking_are_apart(factory: Factory) -> None:
    factory.application_recorder().insert_events([event()])
    factory.aggregate_recorder(purpose="snapshots").insert_events([event(), event()])
    factory.tracking_recorder()
    assert [factory.log(each).version for each in ("events", "snapshots", "tracking")] == [1, 1, 0]


def test_an_absent_log_is_not_made_where_that_is_forbidden() -> None:
    factory = make_factory(CREATE_TABLE="no")
    with pytest.raises(OperationalError):
        factory.application_recorder()
    factory.close()


def test_a_service_that_does_not_answer_is_an_operational_error() -> None:
    factory = make_factory(
        INDELIBLE_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}", INDELIBLE_TIMEOUT_SECONDS="0.2"
    )
    with pytest.raises(OperationalError):
        factory.application_recorder()
    factory.close()


def test_an_api_key_that_is_not_known_is_an_operational_error() -> None:
    factory = make_factory(INDELIBLE_APIKEY="ik_0123456789abcdef_0123456789abcdefghij")
    with pytest.raises(OperationalError):
        factory.application_recorder()
    factory.close()


def test_a_call_from_within_an_event_loop_is_refused(factory: Factory) -> None:
    recorder = factory.application_recorder()

    async def call() -> None:
        recorder.max_notification_id()

    with pytest.raises(ProgrammingError, match="event loop"):
        asyncio.run(call())


def test_the_service_sees_neither_topics_nor_states_nor_names(
    factory: Factory, shared_service: Service
) -> None:
    factory.application_recorder().insert_events([event("canary-topic", b"canary-state")])
    factory.process_recorder()
    data = Path(shared_service.arguments[shared_service.arguments.index("--data") + 1])
    files = [shared_service.log_file, *filter(Path.is_file, data.rglob("*"))]
    stored = b"".join(path.read_bytes() for path in files)
    assert len(stored) > 1_000
    assert b"canary" not in stored
    assert factory.env["INDELIBLE_LOG_NAME"].encode() not in stored


def test_importing_the_client_does_not_import_eventsourcing() -> None:
    script = (
        "import sys, indelible\n"
        "for name in indelible.__all__: getattr(indelible, name)\n"
        "print('eventsourcing' in sys.modules)\n"
        "import indelible.eventsourcing\n"
        "print('eventsourcing' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]
