"""What the tree promises about itself, beyond what the import contracts can say."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "services" / "indelible_server"
PROTOCOL = ROOT / "client" / "indelible_protocol"
MAX_V1_LINES = 450


def modules(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def loaded_by(names: list[str], *prefixes: str) -> list[str]:
    """Modules with one of the prefixes that a fresh interpreter holds after importing `names`."""
    script = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(*[m for m in sys.modules if m.split('.')[0] in {prefixes!r}])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_importing_the_whole_server_loads_nothing_of_the_client() -> None:
    names = modules(SERVER)
    assert len(names) > 30
    assert loaded_by(names, "indelible") == []
    assert loaded_by([*names, "indelible.sealing"], "indelible") != []


def test_importing_the_whole_protocol_loads_no_network_and_no_store() -> None:
    names = modules(PROTOCOL)
    assert loaded_by(names, "aiohttp", "redis", "structlog", "sqlite3", "asyncio") == []


@pytest.mark.parametrize("name", ["time", "random", "os", "secrets", "datetime", "socket"])
def test_no_protocol_module_imports_clock_randomness_or_system(name: str) -> None:
    importing = [path.name for path in PROTOCOL.rglob("*.py") if name in imported_by(path)]
    assert importing == []


def imported_by(path: Path) -> set[str]:
    """Top names of all that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_the_environment_is_read_in_the_settings_alone() -> None:
    assert [path for path in SERVER.rglob("*.py") if reads_environment(path)] == [
        SERVER / "settings.py"
    ]


def reads_environment(path: Path) -> bool:
    names = ("environ", "environb", "getenv", "getenvb")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in names:
            return True
        if isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & set(names):
            return True
    return False


def test_the_v1_adapter_stays_thin() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (SERVER / "api/v1").glob("*.py"))
    assert lines <= MAX_V1_LINES


@pytest.mark.parametrize("word", ["master_key", "SecretBox", "crypto_secretbox", "Aead", "argon2"])
def test_no_server_module_names_what_could_open_an_entry(word: str) -> None:
    allowed = {"telemetry.py"} if word == "master_key" else set()  # it masks a field so named
    naming = {path.name for path in SERVER.rglob("*.py") if word in path.read_text()}
    assert naming <= allowed
