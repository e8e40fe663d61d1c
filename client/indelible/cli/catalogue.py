"""The commands: where each is, what it does, two examples; and the pages that list them.

Loads nothing: the pages are what is asked for most often, and no parser is needed for them.
"""

from typing import NamedTuple


class Listed(NamedTuple):
    """`target` is module:function under `indelible.cli`; empty where `commands` follow the name,
    each with the whole of its own."""

    name: str
    target: str
    summary: str
    examples: tuple[str, ...]
    commands: "tuple[Listed, ...]" = ()


WEBHOOK_COMMANDS = (
    Listed(
        "webhook create",
        "webhooks:create",
        "Have a URL told of new versions; print the key to verify with.",
        (
            "indelible webhook create https://example.org/hook config",
            "indelible webhook create https://example.org/hook config --key theme --payload diff",
        ),
    ),
    Listed(
        "webhook list",
        "webhooks:list_",
        "List webhooks.",
        ("indelible webhook list", "indelible webhook list -o ndjson | jq .url"),
    ),
    Listed(
        "webhook show",
        "webhooks:show",
        "Print all that there is to know of a webhook.",
        (
            "indelible webhook show wh_0123456789abcdef",
            "indelible webhook show wh_0123456789abcdef -o json",
        ),
    ),
    Listed(
        "webhook delete",
        "webhooks:delete",
        "Tell a URL nothing more.",
        (
            "indelible webhook delete wh_0123456789abcdef",
            "indelible webhook delete wh_0123456789abcdef -o json",
        ),
    ),
    Listed(
        "webhook enable",
        "webhooks:enable",
        "Begin anew with a webhook that is disabled.",
        (
            "indelible webhook enable wh_0123456789abcdef",
            "indelible webhook enable wh_0123456789abcdef -o json",
        ),
    ),
    Listed(
        "webhook deliveries",
        "webhooks:deliveries",
        "List what was sent to a webhook, and what was answered.",
        (
            "indelible webhook deliveries wh_0123456789abcdef",
            "indelible webhook deliveries wh_0123456789abcdef --state dead -n 5 -o json",
        ),
    ),
    Listed(
        "webhook replay",
        "webhooks:replay",
        "Send again what was given up.",
        (
            "indelible webhook replay wh_0123456789abcdef --since 2d",
            "indelible webhook replay wh_0123456789abcdef --since 2026-01-07T10:00:00Z",
        ),
    ),
    Listed(
        "webhook rotate-secret",
        "webhooks:rotate_secret",
        "Sign with a new key too; print it.",
        (
            "indelible webhook rotate-secret wh_0123456789abcdef",
            "indelible webhook rotate-secret wh_0123456789abcdef -o json | jq -r .secret",
        ),
    ),
    Listed(
        "webhook trigger",
        "webhooks:trigger",
        "Send a webhook an event that says nothing, to try it.",
        (
            "indelible webhook trigger wh_0123456789abcdef",
            "indelible webhook trigger wh_0123456789abcdef -o json",
        ),
    ),
    Listed(
        "webhook listen",
        "listening:listen",
        "Send what webhooks would to a program on this machine.",
        (
            "indelible webhook listen config --forward-to http://localhost:3000/hook",
            "indelible webhook listen config --since v0 --once --forward-to http://localhost:3000",
        ),
    ),
)


COMMANDS = (
    Listed(
        "init",
        "profiles:init",
        "Make a master key here, and write the profile that holds it.",
        (
            "indelible init --credentials credentials.json",
            "indelible init --credentials - --profile ./profile.json < credentials.json",
        ),
    ),
    Listed(
        "create",
        "writing:create",
        "Make a log.",
        (
            "indelible create config",
            "indelible create counters --value-mode msgpack --group site",
        ),
    ),
    Listed(
        "ls",
        "reading:ls",
        "List logs.",
        ("indelible ls", "indelible ls --group site -o ndjson"),
    ),
    Listed(
        "set",
        "writing:set_values",
        "Set keys, all of them in one commit.",
        (
            "indelible set config theme '\"dark\"' retries 3",
            "indelible set config logo @logo.json --expect-version 7 --source deploy",
        ),
    ),
    Listed(
        "get",
        "reading:get",
        "Print the value of a key.",
        ("indelible get config theme", "indelible get config theme --at 12 -o json"),
    ),
    Listed(
        "rm",
        "writing:rm",
        "Remove keys, all of them in one commit.",
        ("indelible rm config theme", "indelible rm config theme retries --source cleanup"),
    ),
    Listed(
        "cat",
        "reading:cat",
        "Print every entry.",
        ("indelible cat config", "indelible cat config --at 12 -o ndjson | jq .key"),
    ),
    Listed(
        "diff",
        "reading:diff",
        "Print what leads from one version to another.",
        ("indelible diff config 12..15", "indelible diff config 12.. --stat"),
    ),
    Listed(
        "follow",
        "following:follow",
        "Print changes as they come.",
        (
            "indelible follow config",
            "indelible follow config orders --since 10m -o ndjson | jq .",
        ),
    ),
    Listed(
        "versions",
        "reading:versions",
        "List the commits that took effect.",
        ("indelible versions config", "indelible versions config -n 5 -o json"),
    ),
    Listed(
        "history",
        "reading:history",
        "List what a key has held.",
        ("indelible history config theme", "indelible history config theme -n 1"),
    ),
    Listed(
        "stats",
        "inspecting:stats",
        "Print how large a log is and how quickly it grows.",
        ("indelible stats config", "indelible stats config --plot --minutes 240"),
    ),
    Listed(
        "export",
        "transfer:export",
        "Write a log to a file, as lines of JSON.",
        (
            "indelible export config config.jsonl",
            "indelible export config --history | gzip > config.jsonl.gz",
        ),
    ),
    Listed(
        "import",
        "transfer:import_",
        "Bring an export, or a log of the original client, into a log.",
        (
            "indelible import config.jsonl",
            "zcat config.jsonl.gz | indelible import - config-copy",
            "indelible import --from-v1 config --v1-profile old-profile.json --history",
        ),
    ),
    Listed(
        "forget",
        "forgetting:forget",
        "Make a version the first that can be read, and give back what lies below.",
        ("indelible forget config 120", "indelible forget config 120 --dry-run -o json"),
    ),
    Listed(
        "drop",
        "writing:drop",
        "Delete a log with all its versions.",
        ("indelible drop config", "indelible drop config --yes"),
    ),
    Listed(
        "webhook",
        "",
        "Have a URL told of every new version.",
        (
            "indelible webhook create https://example.org/hook config",
            "indelible webhook listen config --forward-to http://localhost:3000/hook",
        ),
        WEBHOOK_COMMANDS,
    ),
    Listed(
        "doctor",
        "inspecting:doctor",
        "Look at everything between here and the service.",
        ("indelible doctor", "indelible doctor --profile ./profile.json -o json"),
    ),
    Listed(
        "completion",
        "completing:completion",
        "Print a script that completes commands and options.",
        (
            "indelible completion bash > ~/.local/share/bash-completion/completions/indelible",
            "indelible completion zsh > ~/.zfunc/_indelible",
        ),
    ),
)
COMMONEST = ("init", "create", "set", "get", "follow")

_WHAT = "End-to-end encrypted, versioned logs that wake their readers with diffs."
_HELP = f"""\
Usage: indelible COMMAND [ARGUMENTS] [OPTIONS]

{_WHAT}

Commands:
{{commands}}

  indelible COMMAND --help has its options and two examples; indelible --version says which
  one this is.

Examples:

  indelible init --credentials credentials.json

  indelible create config && indelible set config theme '"dark"'

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
3 not found, 4 conflict, 5 not allowed, 6 no answer, 130 interrupted, 141 nobody reads stdout.
"""


def page(arguments: list[str]) -> str:
    """What is answered without a parser; empty where one is needed."""
    if not arguments:
        return _first_page()
    if arguments in (["--help"], ["-h"]):
        rows = (f"  {each.name:<11} {each.summary}" for each in COMMANDS)
        return _HELP.format(commands="\n".join(rows))
    if arguments == ["--version"]:
        from importlib.metadata import version  # as slow to load as all the rest

        return f"indelible {version('indelible')}\n"
    return ""


def _first_page() -> str:
    named = {each.name: each for each in COMMANDS}
    rows = (f"  {named[name].examples[0]}\n      {named[name].summary}\n" for name in COMMONEST)
    return f"{_WHAT}\n\n{''.join(rows)}\nindelible --help lists every command.\n"
