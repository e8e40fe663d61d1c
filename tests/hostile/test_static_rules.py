"""What the code may not say, by the linters' rules and by our own; and that the rules see it."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.hostile.rules import RULES, broken

ROOT = Path(__file__).parents[2]
PRODUCT = [ROOT / "client", ROOT / "services", ROOT / "deploy"]
IN_THE_STORE = Path("services/indelible_server/store/sample.py")
UNDERSTOOD = {  # looked at, and no fault
    # The name of the shell to complete for; nothing is run.
    ("B604", "MEDIUM", "client/indelible/cli/completing.py"),
    # One of the folders in which mkdtemp makes a folder of its own.
    ("B108", "MEDIUM", "services/indelible_server/embedded/folder.py"),
}
BAD = {
    "no_unsafe_decoders": [
        "import pickle", "from pickle import loads", "import yaml", "import marshal as m",
        "def f():\n    import shelve.x",
    ],
    "no_code_from_text": [
        "eval(x)", "exec('1')", "subprocess.run(x, shell=True)", "os.system(x)", "os.popen(x)",
        "compile(x, '', 'exec')",
    ],
    "secrets_compared_in_constant_time": [
        "apikey == given", "given != self._secret", "if a.mac == b: pass", "x = not tag != y",
        "stored.master_key == key",
    ],
    "store_keys_made_in_one_place": [
        "key = f'{{{log_id}}}:meta'", "redis.execute_command('GET', f'{log_id}:meta')",
        "await self._redis.execute_command('GET', 'meta:' + name)",
        "r.execute_command('GET', 'x:%s' % name)", "r.execute_command('GET', 'x:{}'.format(name))",
    ],
}  # fmt: skip
GOOD = {
    "no_unsafe_decoders": ["import json", "from tests import pickled"],
    "no_code_from_text": ["evaluate(x)", "re.compile(x)", "subprocess.run([x])", "f(shell=shell)"],
    "secrets_compared_in_constant_time": [
        "hmac.compare_digest(mac, given)", "name == given", "secret is None", "apikey == ''",
    ],
    "store_keys_made_in_one_place": [
        "redis.execute_command('GET', keys.tenant(x))", "message = f'no {name}'",
        "pipe.execute_command('XRANGE', key, f'{version}-0')",
    ],
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_no_line_of_the_product_breaks_a_rule(rule: str) -> None:
    files = [path for folder in PRODUCT for path in folder.rglob("*.py")]
    assert len(files) > 60
    found = [place for path in files for place in broken(RULES[rule], path, path.read_text())]
    assert found == []


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_sees_what_breaks_it_and_nothing_else(rule: str) -> None:
    for sample in BAD[rule]:
        assert broken(RULES[rule], IN_THE_STORE, sample), sample
    for sample in GOOD[rule]:
        assert not broken(RULES[rule], IN_THE_STORE, sample), sample


def ruff(*arguments: str) -> list[str]:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--no-cache",
            "--output-format=json",
            *arguments,
        ],
        capture_output=True,
        cwd=ROOT,
    )
    return [str(fault["code"]) for fault in json.loads(run.stdout)]


def bandit(*arguments: str) -> list[tuple[str, str, str]]:
    """(test, severity, file) of each finding."""
    run = subprocess.run(
        [sys.executable, "-m", "bandit", "-q", "-f", "json", *arguments],
        capture_output=True,
        cwd=ROOT,
    )
    told = json.loads(run.stdout)
    assert told["errors"] == []
    assert told["metrics"]["_totals"]["loc"] > 0
    return [
        (fault["test_id"], fault["issue_severity"], fault["filename"]) for fault in told["results"]
    ]


def test_ruffs_security_rules_hold() -> None:
    """With the exceptions that pyproject.toml gives reasons for."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert {rule for rule in lint["ignore"] if rule.startswith("S")} == {"S101", "S311"}
    assert [code for code in ruff("client", "services", "deploy") if code.startswith("S")] == []


def test_bandit_finds_nothing_of_medium_or_high_severity() -> None:
    found = bandit("-r", "client", "services", "deploy")
    assert {fault for fault in found if fault[1] != "LOW"} <= UNDERSTOOD


def test_the_linters_see_a_bad_sample(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("import subprocess\nsubprocess.run(input(), shell=True)\neval(input())\n")
    assert {"S602", "S307"} <= set(ruff("--select=S", str(sample)))
    found = {(test, severity) for test, severity, _ in bandit(str(sample))}
    assert {("B602", "HIGH"), ("B307", "MEDIUM")} <= found
