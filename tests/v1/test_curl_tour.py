"""Requests as people type them: curl, a shell, and JSON that is none.

What comes back is compared to the byte.
"""

import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

Shell = Callable[..., str]

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("bash") and shutil.which("base64")),
    reason="the tour needs curl, bash and base64",
)

# `say` posts a body to a verb; the body is what a user of the tour writes between the quotes.
PRELUDE = r"""
set -euo pipefail
b64() { echo -n "$1" | base64 | tr -d '\n'; }
AUTH="authinfo: { customer_id: \"$CUSTOMERID\", apikey: \"$APIKEY\" }"
JSON="Content-Type: application/json"
say() { curl -s "$ENDPOINT/v1/log/$1" -X POST -H "$JSON" "${@:3}" -d "$2"; }
"""

CREATE = r"""
say create "
{
  $AUTH,
  logName: \"$LOGNAME\",
  logGroup: \"unencrypted\"
}"
"""

FIRST_UPDATE = r"""
say update "
{
  $AUTH,
  logName: \"$LOGNAME\",
  updateSource: \"tour\"
}
{type: 'Upsert', key: \"`b64 foo`\", value: \"`b64 bar`\"}
{type: 'Upsert', key: \"`b64 foo2`\", value: \"`b64 bar2`\"}
"
"""

DIFF = r"""
say diff "
{
  $AUTH,
  logName: \"$LOGNAME\"
}"
"""

FIRST_DIFF = """{
    "fromVersion": 0,
    "toVersion": 1,
    "page": [
        {
            "change": "Add",
            "entry": {
                "key": "Zm9v",
                "value": "YmFy"
            },
            "version": 1
        },
        {
            "change": "Add",
            "entry": {
                "key": "Zm9vMg==",
                "value": "YmFyMg=="
            },
            "version": 1
        }
    ],
    "nextPageOptions": null
}"""

SECOND_DIFF = """{
    "fromVersion": 1,
    "toVersion": 2,
    "page": [
        {
            "change": "Add",
            "entry": {
                "key": "Zm9vMw==",
                "value": "YmFyMw=="
            },
            "version": 2
        }
    ],
    "nextPageOptions": null
}"""


@pytest.fixture
def start(service: Any, log_name: str) -> Callable[[str], "subprocess.Popen[str]"]:
    """Starts a piece of the tour in a shell of its own."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "ENDPOINT": service.url,
        "CUSTOMERID": service.customer_id,
        "APIKEY": service.apikey,
        # The published tour escapes its exclamation mark for the shell; the backslash gets
        # through, and is an escape that JSON5 knows and JSON does not.
        "LOGNAME": f"Hello, {log_name}\\!",
        "PLAINNAME": f"Hello, {log_name}!",
    }

    def start(script: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", "-c", PRELUDE + script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    return start


@pytest.fixture
def shell(start: Callable[[str], "subprocess.Popen[str]"]) -> Shell:
    def run(script: str) -> str:
        return finished(start(script))

    return run


def finished(process: "subprocess.Popen[str]") -> str:
    """What it printed."""
    try:
        printed, complaint = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0, complaint
    return printed


@pytest.fixture
def toured(shell: Shell) -> Shell:
    """A shell whose log has version 1."""
    assert shell(CREATE) == ""
    assert shell(FIRST_UPDATE) == ""
    return shell


def test_first_update_is_shown_as_the_tour_shows_it(toured: Shell) -> None:
    assert toured(DIFF) == FIRST_DIFF


def test_repeated_update_changes_nothing(toured: Shell) -> None:
    assert toured(FIRST_UPDATE) == ""
    assert toured(DIFF) == FIRST_DIFF


def test_escaped_name_is_the_name_without_its_backslash(toured: Shell) -> None:
    strict = r"""
say diff "{
  \"authinfo\": {\"customer_id\": \"$CUSTOMERID\", \"apikey\": \"$APIKEY\"},
  \"logName\": \"$PLAINNAME\"
}"
"""
    assert toured(strict) == FIRST_DIFF


def test_waiting_diff_shows_the_update_of_another_window(
    toured: Shell, start: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    waiting = start(r'say diff "{ $AUTH, logName: \"$LOGNAME\", fromVersion: 1, waitSeconds: 60 }"')
    update = r"""
say update "
{ $AUTH, logName: \"$LOGNAME\", updateSource: \"tour\" }
{type: 'ExpectVersion', version: '1'}
{type: 'Upsert', key: \"`b64 foo3`\", value: \"`b64 bar3`\"}
"
"""
    assert toured(update) == ""
    updated_at = time.monotonic()
    assert finished(waiting) == SECOND_DIFF
    assert time.monotonic() - updated_at < 10


def test_wait_that_nothing_ends_answers_with_an_empty_page(toured: Shell) -> None:
    began = time.monotonic()
    answer = toured(
        r'say diff "{ $AUTH, logName: \"$LOGNAME\", fromVersion: \"1\", waitSeconds: \"1\" }"'
    )
    assert time.monotonic() - began >= 1
    assert answer == (
        '{\n    "fromVersion": 1,\n    "toVersion": 1,\n    "page": [],\n'
        '    "nextPageOptions": null\n}'
    )


def test_earlier_values_of_a_key_are_traced_by_version(toured: Shell) -> None:
    update = r"""
for command in "{type:'Upsert',key:'`b64 foo`',value:'`b64 bar2`'}" \
               "{type:'Upsert',key:'`b64 foo`',value:'`b64 bar3`'}" \
               "{type:'Upsert',key:'`b64 zoo`',value:'`b64 zoo`'}"; do
  say update "{$AUTH, logName: '$LOGNAME'} $command"
done
"""
    assert toured(update) == ""

    def foo_at(version: str) -> str:
        return toured(
            rf"""
say diff "{{
  $AUTH,
  logName: \"$LOGNAME\",
  orderResultsBy: \"key\",
  {version}
  paginationOptions: {{
    skipToKey: \"`b64 foo`\"
  }},
  limit: 1
}}"
"""
        )

    for asked, to_version, value, version in (
        ("", 4, "YmFyMw==", 3),
        ("toVersion: 2,", 2, "YmFyMg==", 2),
        ("fromVersion: 0, toVersion: 1,", 1, "YmFy", 1),
    ):
        assert (
            foo_at(asked)
            == f"""{{
    "fromVersion": 0,
    "toVersion": {to_version},
    "page": [
        {{
            "change": "Add",
            "entry": {{
                "key": "Zm9v",
                "value": "{value}"
            }},
            "version": {version}
        }}
    ],
    "nextPageOptions": {{
        "skipToKey": "Zm9vMg==",
        "removeAlreadySeen": true,
        "skipToVersion": null,
        "skipToCommand": null
    }}
}}"""
        )


def test_next_page_in_the_order_of_commands_is_told_by_version_and_command(
    toured: Shell,
) -> None:
    answer = toured(r'say diff "{ $AUTH, logName: \"$LOGNAME\", limit: 1 }"')
    assert answer.endswith("""
    "nextPageOptions": {
        "skipToKey": null,
        "removeAlreadySeen": true,
        "skipToVersion": 1,
        "skipToCommand": 1
    }
}""")


@pytest.mark.parametrize(
    "options",
    [
        "-H 'Transfer-Encoding: chunked'",
        "-H 'Content-Type: application/x-www-form-urlencoded'",
        "-H 'Content-Type:'",
        "-H 'Content-Type: text/plain; charset=latin-1'",
        "-H 'Expect: 100-continue'",
        "--http1.0",
    ],
)
def test_way_of_sending_does_not_matter(shell: Shell, options: str) -> None:
    assert shell(CREATE) == ""
    sending = rf"""
cat <<END | curl -s "$ENDPOINT/v1/log/update" -X POST {options} --data-binary @-
{{ $AUTH, logName: "$LOGNAME" }}
{{type: 'Upsert', key: "`b64 foo`", value: "`b64 bar`"}}
{{"type": "Upsert", "key": "`b64 foo2`", "value": "`b64 bar2`"}}
END
"""
    assert shell(sending) == ""
    assert shell(DIFF) == FIRST_DIFF


def test_update_streamed_in_chunks_of_unknown_length_applies(shell: Shell) -> None:
    assert shell(CREATE) == ""
    streaming = r"""
{
  echo "{ $AUTH, logName: \"$LOGNAME\" }"
  echo -n "{type: 'Upsert', key: \"`b64 foo`\", va"
  sleep 0.1
  echo "lue: \"`b64 bar`\"}"
  echo "{type: 'Upsert', key: \"`b64 foo2`\", value: \"`b64 bar2`\"}"
} | curl -s "$ENDPOINT/v1/log/update" -X POST -H "Transfer-Encoding: chunked" -T -
"""
    assert shell(streaming) == ""
    assert shell(DIFF) == FIRST_DIFF


def test_successful_answer_is_json_and_an_update_has_an_empty_one(shell: Shell) -> None:
    assert shell(CREATE + FIRST_UPDATE) == ""
    report = r"say diff '{' -o /dev/null -w '%{http_code} %{content_type}'"
    assert shell(report).startswith("400 application/json")
    told = r"""say update "{ $AUTH, logName: '$LOGNAME' }{type:'ExpectVersion',version:1}" """
    assert shell(told + "-w '%{http_code} %{size_download}'") == "200 0"
    told = r"""say diff "{ $AUTH, logName: '$LOGNAME' }" -o /dev/null """
    assert shell(told + "-w '%{http_code} %{content_type}'").startswith("200 application/json")


REFUSALS = {
    "BAD_API_KEY": (401, 1001),
    "UNEXPECTED_VERSION": (412, 1003),
    "NONEXISTENT_VERSION": (404, 1004),
    "NONEXISTENT_LOG": (404, 1005),
    "UNEXPECTED_VALUE": (412, 1008),
    "NONEXISTENT_VALUE": (412, 1009),
    "LOG_EXISTS": (412, 1010),
    "BAD_REQUEST": (400, 1011),
}


@pytest.mark.parametrize(
    ("verb", "body", "code"),
    [
        ("create", "{ authinfo: { customer_id: 'x', apikey: 'y' }, logName: 'n' }", "BAD_API_KEY"),
        ("create", "{ logName: 'n' }", "BAD_API_KEY"),
        ("update", "{ logName: 'n' }", "BAD_API_KEY"),
        ("diff", "{ logName: 'n' }", "BAD_API_KEY"),
        ("diff", "{ $AUTH, logName: 'absent' }", "NONEXISTENT_LOG"),
        ("diff", "{ $LOG, fromVersion: 2 }", "NONEXISTENT_VERSION"),
        ("diff", "{ $LOG, toVersion: '2' }", "NONEXISTENT_VERSION"),
        ("diff", "{ $LOG, colour: 2 }", "BAD_REQUEST"),
        ("diff", "{ $LOG, fromVersion: NaN }", "BAD_REQUEST"),
        ("diff", "{ $LOG", "BAD_REQUEST"),
        ("update", "{ $LOG }{type: 'ExpectVersion', version: '2'}", "UNEXPECTED_VERSION"),
        ("update", "{ $LOG }{type: 'Insert', key: 'Zm9v', value: 'Zm9v'}", "UNEXPECTED_VALUE"),
        ("update", "{ $LOG }{type: 'Update', key: 'Zm8=', value: 'Zm9v'}", "NONEXISTENT_VALUE"),
        ("update", "{ $LOG }{type: 'Delete', key: 'Zm9v'}", "BAD_REQUEST"),
        ("create", "{ $LOG, logGroup: 'other' }", "LOG_EXISTS"),
    ],
)
def test_refusal_has_status_and_body_as_documented(
    toured: Shell, verb: str, body: str, code: str
) -> None:
    said = toured(
        "LOG=\"$AUTH, logName: '$LOGNAME'\"\n" + f"say {verb} \"{body}\" -w '\\n%{{http_code}}'"
    )
    text, _, status = said.rpartition("\n")
    expected_status, number = REFUSALS[code]
    assert int(status) == expected_status
    assert text.startswith(f'{{"code": "{code}", "codeNumber": {number}, "message": "')
    assert '"details": {' in text
    assert toured(DIFF) == FIRST_DIFF
