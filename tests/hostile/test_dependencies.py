"""No dependency is older than its last known fault, here or in what an installer may choose."""

import re
import tomllib
from importlib.metadata import distributions, version
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


def locked() -> dict[str, str]:
    """Name to version, of what the image installs."""
    text = (ROOT / "deploy/requirements.lock").read_text().replace("\\\n", " ")
    found = {}
    for line in filter(lambda line: line and not line.startswith("#"), text.splitlines()):
        match = re.match(r"([a-z0-9-]+)==([\w.]+) .*--hash=sha256:[0-9a-f]{64}", line)
        assert match, f"not one version with its hashes: {line[:80]}"
        found[match[1]] = match[2]
    return found


def test_the_image_locks_every_dependency_by_hash_at_no_less_than_its_floor() -> None:
    found = locked()
    for name, floor in floors().items():
        assert parts(found[name]) >= parts(floor), name
    for name, least in LEAST.items():
        assert parts(found[name]) >= parts(least), name
    installed = {each.metadata["Name"].lower().replace("_", "-") for each in distributions()}
    assert found.keys() - installed <= {"async-timeout"}, "locked, but nothing here needs it"


def test_an_older_version_would_be_seen() -> None:
    assert parts("3.14.4") < parts(LEAST["aiohttp"])
    assert parts("3.9.10") < parts(LEAST["aiohttp"])
    assert parts("8.0.9") < parts(LEAST["redis"])
