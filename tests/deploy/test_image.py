"""The image, as far as it goes without a container engine: the image itself is never started here.

What it copies is there and is what the package is built from; what it would run is run with the
same arguments and variables, and its health check beside that.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.polling import until
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
PROGRAMS = "/opt/indelible/bin/"
READY_SECONDS = 30.0
STOP_SECONDS = 20.0


class Instruction(NamedTuple):
    word: str
    rest: str


def stages() -> list[list[Instruction]]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line:
            instruction = Instruction(*line.split(" ", 1))
            if instruction.word == "FROM":
                found.append([])
            found[-1].append(instruction)
    return found


def last(word: str) -> list[str]:
    return [instruction.rest for instruction in stages()[-1] if instruction.word == word]


def copied() -> set[str]:
    """What comes from the folder of the project."""
    copies = [i.rest.split()[:-1] for i in stages()[0] if i.word == "COPY"]
    return {source for sources in copies for source in sources}


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    """What stands on this machine for the image's places and ports."""
    return {
        PROGRAMS: f"{Path(sys.executable).parent}/",
        "/data": str(tmp_path / "data"),
        "8480": str(free_port()),
        "8481": str(free_port()),
    }


@pytest.fixture
def running(here: dict[str, str], tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("INDELIBLE_")}
    for name, _, value in (assignment.partition("=") for assignment in last("ENV")):
        if name != "PATH":
            env[name] = placed(value, here)
    (entry,), (arguments,) = last("ENTRYPOINT"), last("CMD")
    command = [placed(word, here) for word in json.loads(entry) + json.loads(arguments)]
    with (tmp_path / "image.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)
    yield process
    if process.poll() is None:
        process.terminate()  # not kill: that leaves its engine behind
        process.wait(STOP_SECONDS)


def placed(text: str, here: dict[str, str]) -> str:
    for there, place in here.items():
        text = text.replace(there, place)
    return text


def healthy(check: Sequence[str]) -> bool:
    done = subprocess.run(check, capture_output=True, timeout=20)
    return done.returncode == 0


async def test_what_the_image_runs_gets_healthy_and_ends_at_its_stop_signal(
    running: "subprocess.Popen[bytes]", here: dict[str, str], tmp_path: Path
) -> None:
    (health,) = last("HEALTHCHECK")
    assert "/readyz" in health
    check = [placed(word, here) for word in json.loads(health[health.index("[") :])]
    await until(
        lambda: running.poll() is not None or healthy(check),
        within_seconds=READY_SECONDS,
    )
    assert running.poll() is None, (tmp_path / "image.log").read_text()
    assert last("STOPSIGNAL") == ["SIGTERM"]
    running.terminate()
    assert running.wait(10) == 0, "an engine for containers kills after 10 s"
    assert not healthy(check)
    assert last("VOLUME") == ["/data"]
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"data"}, "state elsewhere"


def test_image_copies_all_that_the_package_is_built_from_and_it_is_there() -> None:
    sources = copied()
    assert all((ROOT / source).exists() for source in sources)
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)
    project = settings["project"]
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"], *packages}
    needed_here = {name.partition("/")[0] for name in needed}
    assert needed_here | {"deploy/requirements.lock"} == sources
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == sources


def test_last_stage_is_not_root_and_has_nothing_that_builds() -> None:
    builder, final = stages()
    assert builder[0].rest == f"{final[0].rest} AS build", "one Python in both stages"
    words = [instruction.word for instruction in final]
    (user,) = last("USER")
    uid = user.split(":")[0]
    assert uid.isdecimal()
    assert int(uid) > 0
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert any(f"-o {uid} " in run and run.endswith(" /data") for run in last("RUN"))
    assert all(copy.startswith("--from=build /opt/indelible ") for copy in last("COPY"))
    runs = " ".join(last("RUN"))
    assert "pip uninstall --yes setuptools wheel pip" in runs
    assert " install --yes" not in runs
    assert "apt" not in runs
