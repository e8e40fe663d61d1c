"""`indelible follow`: prints what changes in one or more logs, as it comes.

Goes on through restarts of the service and lost connections, and says so on stderr. ^C is
how it ends, and is no failure.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from indelible.answers import Diff
from indelible.cli.options import AT_LEAST_0, DEFAULT, Common, flag
from indelible.cli.output import PREFIX_STYLES, Output, moment
from indelible.cli.reading import change_line, change_members
from indelible.cli.sessions import async_client_of, modes_of
from indelible.cli.values import log_name, name_text, one_version, time_ago
from indelible.errors import RequestError

if TYPE_CHECKING:
    from indelible.log import AsyncLog


def follow(
    *logs: str,
    since: Annotated[
        str | None, Parameter(help="Begin after this version (v120), or so long ago (10m, 2h).")
    ] = None,
    count: Annotated[
        int | None,
        Parameter(
            name=["--count", "-n"],
            help="Begin with the last so many versions.",
            validator=AT_LEAST_0,
        ),
    ] = None,
    group: Annotated[
        str | None,
        Parameter(help="Follow the logs of this group, and those that are made in it later."),
    ] = None,
    once: Annotated[bool, flag("End after one diff of each log.")] = False,
    timestamps: Annotated[bool, flag("Say when each diff came.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Print every change of the logs as it comes, until ^C.

    Begins with the current version unless told otherwise. In the forms json and ndjson each
    diff is one line.

    Parameters
    ----------
    logs
        LOG [LOG ...]; of several, each line begins with the log's name.
    """
    if since is not None and count is not None:
        raise RequestError("--since and --count both say where to begin: give one of them")
    output = Output(common)
    if group is not None:
        if logs or count is not None or since not in (None, "v0") or once:
            raise RequestError("--group goes with --since v0, --timestamps and nothing else")
        with suppress(KeyboardInterrupt):
            asyncio.run(_follow_group(group, common, output, since is not None, timestamps))
        return
    if not logs:
        raise RequestError("which LOG?")
    with suppress(KeyboardInterrupt):
        asyncio.run(
            _follow(
                logs, common, output, partial(start_of, since=since, count=count), once, timestamps
            )
        )


async def _follow(
    names: Sequence[str],
    common: Common,
    output: Output,
    start: "Callable[[AsyncLog], Awaitable[int | None]]",
    once: bool,
    timestamps: bool,
) -> None:
    with ConnectionNotes(output):
        async with async_client_of(common) as client:
            logs = [
                await client.log(log_name(name), key_mode=None, value_mode=None) for name in names
            ]
            printers = [
                _Printer(output, log, name if len(names) > 1 else "", style, timestamps)
                for log, name, style in zip(logs, names, cycle(PREFIX_STYLES), strict=False)
            ]
            try:
                async with asyncio.TaskGroup() as tasks:
                    for log, printer in zip(logs, printers, strict=True):
                        tasks.create_task(_print_diffs(log, await start(log), printer, once))
            except ExceptionGroup as group:
                raise first_of(group) from None


async def _follow_group(
    group: str, common: Common, output: Output, from_start: bool, timestamps: bool
) -> None:
    printers: dict[str, _Printer] = {}
    styles = cycle(PREFIX_STYLES)
    with ConnectionNotes(output):
        async with async_client_of(common) as client:
            moves = client.follow_group(group, from_start=from_start)
            async with aclosing(moves):
                async for log, diff in moves:
                    name = name_text(log.name)
                    if diff is None:
                        output.note(f"-- {name} was dropped --")
                        continue
                    if log.log_id not in printers:
                        printers[log.log_id] = _Printer(output, log, name, next(styles), timestamps)
                    printers[log.log_id].print(diff)


def first_of(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, ExceptionGroup) else first


async def _print_diffs(log: "AsyncLog", after: int | None, printer: "_Printer", once: bool) -> None:
    async with aclosing(log.follow(after)) as diffs:
        async for diff in diffs:
            printer.print(diff)
            if once:
                return


async def start_of(log: "AsyncLog", *, since: str | None, count: int | None) -> int | None:
    """The version to begin after; None for the current one."""
    if count is not None:
        return max(0, await log.version - count)
    if since is None:
        return None
    limit = time_ago(since)
    if limit is None:
        return one_version(since)
    async for version in log.versions():
        if version.time < limit:
            return version.version
    return 0


class _Printer:
    """Prints the diffs of one log; `prefix` is empty where there is but one."""

    def __init__(
        self, output: Output, log: "AsyncLog", prefix: str, style: str, timestamps: bool
    ) -> None:
        self._output = output
        self._log = log
        self._modes = modes_of(log)
        self._prefix = output.styled(prefix, style) + "  " if prefix else ""
        self._timestamps = timestamps

    def print(self, diff: Diff) -> None:
        if self._output.is_text:
            self._print_text(diff)
        else:
            members = {
                "log": self._log.name,
                "from": diff.from_version,
                "to": diff.to_version,
                "changes": [change_members(change, self._modes) for change in diff.changes],
            }
            self._output.item("", members)
        self._output.flush()

    def _print_text(self, diff: Diff) -> None:
        head = f"v{diff.from_version}..v{diff.to_version}"
        if self._timestamps:
            head += f"  {moment(datetime.now(UTC))}"
        self._output.line(self._prefix + self._output.styled(head, "head"))
        for change in diff.changes:
            self._output.line(self._prefix + change_line(self._output, change, self._modes))


class ConnectionNotes(logging.Handler):
    """Says on stderr when a connection is lost and when it is back."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.INFO)
        self._output = output
        self._logger = logging.getLogger("indelible.follow")

    def emit(self, record: logging.LogRecord) -> None:
        self._output.note(f"-- {record.getMessage()} --")

    def __enter__(self) -> None:
        self._logger.addHandler(self)
        self._logger.setLevel(logging.INFO)

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
