"""Commands that change something: create, set, rm, drop."""

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from indelible.cli.asking import ask
from indelible.cli.options import AT_LEAST_0, DEFAULT, Common, flag
from indelible.cli.output import Output, plural, shown
from indelible.cli.sessions import client_of, log_of, modes_of
from indelible.cli.values import Typed, log_name, name_text
from indelible.commands import Command, Delete, Insert, Upsert
from indelible.errors import ConflictError, RequestError

if TYPE_CHECKING:
    from indelible.blocking import Log

Modes = Literal["string", "json", "msgpack", "binary"]
Expected = Annotated[
    int | None,
    Parameter(
        help="Only if the log is at this version; a conflict otherwise.", validator=AT_LEAST_0
    ),
]
Source = Annotated[str, Parameter(help="Who or what makes the commit; sealed, shown by versions.")]


def create(
    log: str,
    /,
    *,
    key_mode: Annotated[Modes, Parameter(help="What keys are.")] = "string",
    value_mode: Annotated[Modes, Parameter(help="What values are.")] = "json",
    group: Annotated[str, Parameter(help="A label that the service can read.")] = "",
    common: Common = DEFAULT,
) -> None:
    """Make a log, or find that it is there with the same modes and group.

    Parameters
    ----------
    log
        Its name; ["a", "b"] is a name of parts.
    """
    output = Output(common)
    with client_of(common) as client:
        made = client.log(
            log_name(log), create=True, key_mode=key_mode, value_mode=value_mode, group=group
        )
        version = made.version
        name = name_text(made.name)
        output.item(
            f"{name} at version {version}",
            {"name": made.name, "log_id": made.log_id, "group": made.group, "version": version},
        )


def set_values(
    log: str,
    /,
    *pairs: str,
    absent: Annotated[bool, flag("Only if the key holds no other value.")] = False,
    expect_version: Expected = None,
    source: Source = "",
    common: Common = DEFAULT,
) -> None:
    """Set keys, all of them in one commit.

    Parameters
    ----------
    log
        The log's name.
    pairs
        KEY VALUE [KEY VALUE ...]; each may be - (stdin) or @FILE, @@ begins one with a plain @.
    """
    if not pairs or len(pairs) % 2:
        raise RequestError(f"KEY VALUE pairs expected, not {len(pairs)} arguments")
    typed = Typed()
    with log_of(common, log) as opened:
        key_mode, value_mode = modes_of(opened)
        kind = Insert if absent else Upsert
        commands: list[Command] = []
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            wanted = typed.value(key, key_mode, "KEY")
            commands.append(kind(wanted, typed.value(value, value_mode, "VALUE")))
        _commit(opened, commands, expect_version, source, common)


def rm(
    log: str,
    /,
    *keys: str,
    expect_version: Expected = None,
    source: Source = "",
    common: Common = DEFAULT,
) -> None:
    """Remove keys, all of them in one commit; absent ones are no error.

    Parameters
    ----------
    log
        The log's name.
    keys
        KEY [KEY ...]; each may be - (stdin) or @FILE.
    """
    if not keys:
        raise RequestError("which KEY is to be removed?")
    typed = Typed()
    with log_of(common, log) as opened:
        key_mode, _ = modes_of(opened)
        commands: list[Command] = [Delete(typed.value(key, key_mode, "KEY")) for key in keys]
        _commit(opened, commands, expect_version, source, common)


def _commit(
    log: "Log",
    commands: list[Command],
    expect_version: int | None,
    source: str,
    common: Common,
) -> None:
    try:
        done = log.update(commands, expect_version=expect_version, source=source)
    except ConflictError as error:
        if error.index is None or error.index >= len(commands):
            raise
        key = shown(commands[error.index].key, modes_of(log)[0])
        raise ConflictError(
            f"{key} holds another value already; nothing was changed",
            index=error.index,
            current_version=error.current_version,
            code=error.code,
            request_id=error.request_id,
        ) from error
    text = f"v{done.version}" if done.changed else f"v{done.version} (nothing changed)"
    Output(common).item(text, {"version": done.version, "changed": done.changed})


def drop(
    log: str, /, *, yes: Annotated[bool, flag("Do not ask.")] = False, common: Common = DEFAULT
) -> None:
    """Delete a log with all its versions. There is no way back.

    Parameters
    ----------
    log
        The log's name.
    """
    output = Output(common)
    with log_of(common, log) as opened:
        found = opened.describe()
        if not yes:
            ask(
                f"delete {name_text(found.name)} with its {plural(found.version, 'version')} "
                f"and {plural(found.entries, 'entry', 'entries')}? type its name: ",
                name_text(found.name),
                "nothing was deleted",
            )
        opened.drop()
        output.item(
            f"dropped {name_text(found.name)} at v{found.version}",
            {"name": found.name, "version": found.version, "dropped": True},
        )
