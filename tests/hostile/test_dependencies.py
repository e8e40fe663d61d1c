"""No dependency is older than its last known fault, here or in what an installer may choose."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAST = {
    "aiohttp": "3.14.5",  # CVE-2025-69223 and smuggling through lenient parsing
    "redis": "8.1",  # CVE-2023-28859: another caller's answer after a cancellation
    "msgpack": "1.2.4",
    "msgspec": "0.22",
    "pynacl": "1.6.2",  # CVE-2025-69277
}


def parts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def floors() -> dict[str, str]:
    """Name to least version, of every dependency that a user installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    found = [re.match(r"([a-z0-9-]+)(?:\[\w+\])?>=([\d.]+)", line) for line in wanted]
    assert all(found), f"a dependency without a floor: {wanted}"
    return {match[1]: match[2] for match in found if match}


@pytest.mark.parametrize("name", LEAST)
def test_a_dependency_is_at_least_the_version_that_has_no_known_fault(name: str) -> None:
    least = parts(LEAST[name])
    assert parts(version(name)) >= least
    assert parts(floors()[name]) >= least


def test_every_dependency_has_a_floor_that_is_installed() -> None:
    for name, floor in floors().items():
        assert parts(version(name)) >= parts(floor), name


def test_an_older_version_would_be_seen() -> None:
    assert parts("3.14.4") < parts(LEAST["aiohttp"])
    assert parts("3.9.10") < parts(LEAST["aiohttp"])
    assert parts("8.0.9") < parts(LEAST["redis"])
