"""The lists in the documents are those of the code, in both directions, each entry once."""

import ast
import re
from pathlib import Path

import msgspec
from indelible_protocol.errors import ErrorCode
from indelible_server.settings import Settings
from indelible_server.store import keys
from indelible_server.telemetry import Metrics

ROOT = Path(__file__).parents[1]
RUNBOOK = ROOT / "deploy/RUNBOOK.md"
EVENT = re.compile(r"[a-z]+\.[a-z_]+")
LEVELS = {"debug", "info", "warning", "error", "exception"}


def table(document: Path, mark: str) -> list[list[str]]:
    """Rows of the table that follows the comment `mark`, as lists of cells."""
    _, found, rest = document.read_text().partition(f"<!-- {mark} -->\n")
    assert found, f"{document.name} has no table marked {mark!r}"
    lines = rest.split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def first_words(document: Path, mark: str) -> list[str]:
    words = [re.sub(r"`", "", row[0]) for row in table(document, mark)]
    assert len(words) == len(set(words)), "an entry stands twice"
    return words


def test_every_setting_is_in_the_runbook() -> None:
    assert set(first_words(RUNBOOK, "settings")) == set(Settings.__struct_fields__)
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    for name, shown, _ in table(RUNBOOK, "settings"):
        default = defaults[name.strip("`")]
        if default:
            assert (
                shown.strip("`") == f"{default:g}" if isinstance(default, float) else str(default)
            )


def test_every_error_code_is_in_the_protocol() -> None:
    rows = table(ROOT / "client/PROTOCOL.md", "error codes")
    listed = [(row[0], int(row[1]), int(row[2]), row[3] == "yes", row[4] == "yes") for row in rows]
    assert listed == [
        (code.name, code.number, code.http_status, code.retryable, code.may_have_applied)
        for code in ErrorCode
    ]


def test_every_log_event_is_in_the_runbook() -> None:
    logged = {
        node.args[0].value
        for path in (ROOT / "services").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and EVENT.fullmatch(str(node.args[0].value))
    }
    assert set(first_words(RUNBOOK, "log events")) == logged


def test_every_metric_is_in_the_runbook() -> None:
    ours = {metric.name for metric in Metrics().registry.collect() if "indelible" in metric.name}
    assert set(first_words(RUNBOOK, "metrics")) == ours


def test_every_redis_key_is_in_the_design() -> None:
    in_code = re.findall(r"^\| (`\{.*?) \|", keys.__doc__ or "", re.MULTILINE)
    in_design = [row[0] for row in table(ROOT / "services/DESIGN.md", "redis keys")]
    assert in_design == in_code
    assert len(in_code) > 10
