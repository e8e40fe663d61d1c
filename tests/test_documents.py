"""The lists in the documents are those of the code, in both directions, each entry once."""

import ast
import re
from inspect import isfunction, unwrap
from pathlib import Path

import msgspec
from indelible.cli import exits
from indelible.cli.app import app
from indelible.cli.catalogue import COMMANDS
from indelible_protocol.commands import LogKind
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from indelible_server.settings import Settings
from indelible_server.store import keys
from indelible_server.telemetry import Metrics
from prometheus_client import generate_latest

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


def test_every_command_and_exit_code_is_in_the_commands() -> None:
    commands = ROOT / "client/COMMANDS.md"
    listed = first_words(commands, "commands")
    assert set(listed) == {name for name in app.resolved_commands() if name[0] != "-"}
    for each in COMMANDS:
        if each.commands:
            inner = {name for name in app[each.name].resolved_commands() if name[0] != "-"}
            rows = first_words(commands, f"{each.name} commands")
            assert set(rows) == {f"{each.name} {name}" for name in inner}
    codes = {int(word) for word in first_words(commands, "exit codes")}
    assert codes == set(exits.ALL)


def test_every_setting_is_in_the_runbook() -> None:
    assert set(first_words(RUNBOOK, "settings")) == set(Settings.__struct_fields__)
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    shown = {row[0].strip("`"): row[1].strip("`") for row in table(RUNBOOK, "settings")}
    assert shown.pop("secret_file") == "DIR/secret"  # what is taken when it is not given
    assert shown == {
        name: f"{default:g}" if isinstance(default, float) else str(default)
        for name, default in defaults.items()
        if name in shown
    }


def test_every_error_code_is_in_the_protocol() -> None:
    rows = table(ROOT / "client/PROTOCOL.md", "error codes")
    listed = [(row[0], int(row[1]), int(row[2]), row[3] == "yes", row[4] == "yes") for row in rows]
    assert listed == [
        (code.name, code.number, code.http_status, code.retryable, code.may_have_applied)
        for code in ErrorCode
    ]


def test_every_log_event_is_in_the_runbook_with_its_level() -> None:
    logged = {
        (node.args[0].value, node.func.attr.replace("exception", "error"))
        for path in (ROOT / "services").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and EVENT.fullmatch(str(node.args[0].value))
    }
    assert len(logged) > 20
    first_words(RUNBOOK, "log events")
    assert {(row[0].strip("`"), row[1]) for row in table(RUNBOOK, "log events")} == logged


def test_every_metric_is_in_the_runbook_as_it_is_told() -> None:
    text = generate_latest(Metrics().registry).decode()
    told = re.findall(r"^# TYPE (indelible_\w+)", text, re.MULTILINE)
    ours = [name for name in told if not name.endswith("_created")]
    assert sorted(first_words(RUNBOOK, "metrics")) == sorted(ours)


def test_every_redis_key_is_in_the_design() -> None:
    in_docstring = re.findall(r"^\| (`\{.*?) \|", keys.__doc__ or "", re.MULTILINE)
    in_design = [row[0] for row in table(ROOT / "services/DESIGN.md", "redis keys")]
    assert in_design == in_docstring
    listed = {key for cell in in_design for key in re.findall(r"`(\{.*?)`", cell)}
    assert listed | {"{<log id>}:answers1"} == keys_made()


def keys_made() -> set[str]:
    """What every function of `keys` makes, with words in place of what varies."""
    made = {
        "of_log": keys.of_log(LogId(bytes(32))).all(),
        "materialized": keys.materialized(LogId(bytes(32))).all(),
        "archived": keys.archived(LogId(bytes(32))).all(),
        "kept": [keys.kept(LogId(bytes(32)))],
        "all_of_log": keys.all_of_log(LogId(bytes(32))),
        "name": [keys.name("<tenant>", "<database>", LogKind.OPAQUE, b"")],
        "listing": [keys.listing("<tenant>", "<database>")],
        "group": msgspec.structs.astuple(keys.group("<tenant>", "<database>", "")),
        "tenant": [keys.tenant("<tenant>")],
        "tenant_keys": [keys.tenant_keys("<tenant>")],
        "tenant_databases": [keys.tenant_databases("<tenant>")],
        "credential": [keys.credential("<key id>")],
        "tenant_webhooks": [keys.tenant_webhooks("<tenant>")],
        "of_webhook": keys.of_webhook("<tenant>", "<id>").all(),
    }
    found_there = {n: unwrap(f) for n, f in vars(keys).items() if callable(f)}
    ours = {n for n, f in found_there.items() if isfunction(f) and f.__module__ == keys.__name__}
    assert set(made) == ours
    fixed = {keys.TENANTS, keys.WEBHOOK_TENANTS, keys.WEBHOOK_CHANGES, keys.ARCHIVE_DELETED}
    found = fixed | {*(key for group in made.values() for key in group)}
    return {re.sub("[0-9a-f]{64}", "<hash>", key.replace("0" * 64, "<log id>")) for key in found}
