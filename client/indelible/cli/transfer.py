"""`indelible export` and `indelible import`: logs to files of JSON lines, and back.

Both go on where they were when they are called again. How far they are stands on stderr: a
bar on a terminal, a line every ten seconds elsewhere.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Group, Parameter

from indelible import v1
from indelible.cli.options import DEFAULT, Common, flag
from indelible.cli.output import Output, wants_colour
from indelible.cli.values import log_name, name_text
from indelible.client import AsyncClient
from indelible.errors import ConfigError, RequestError
from indelible.transferring import (
    Exported,
    Imported,
    OnProgress,
    Progress,
    V1Mode,
    export_log,
    import_from_v1,
    import_log,
)

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

LINE_SECONDS = 10.0
_STREAMS = ("-", "@-")  # the second is what the command line makes of the first

R = TypeVar("R")


def export(
    log: str,
    file: str = "-",
    /,
    *,
    history: Annotated[bool, flag("Every commit, with its source and time.")] = False,
    at: Annotated[int | None, Parameter(help="As it was at this version.")] = None,
    common: Common = DEFAULT,
) -> None:
    """Write what a log holds, or its whole history, as lines of JSON: in clear.

    FILE is written as FILE.partial until it is whole. Interrupted or killed, the same command
    goes on where it was.

    Parameters
    ----------
    log
        The log's name.
    file
        Where to; - is stdout.
    """
    output = Output(common)

    async def run(client: AsyncClient, tell: OnProgress) -> Exported:
        opened = await client.log(log_name(log), key_mode=None, value_mode=None)
        target = sys.stdout.buffer if file in _STREAMS else file
        return await export_log(opened, target, history=history, at=at, on_progress=tell)

    done = _transferred(run, common, output)
    text = (
        f"exported {done.lines:,} {done.kind} of {log} at v{done.version}"
        f"{_of_them(done.resumed, 'were there already')}, sha256 {done.digest[:16]}"
    )
    if file in _STREAMS:
        output.note(text)
    else:
        output.item(
            text,
            {
                "kind": done.kind,
                "version": done.version,
                "lines": done.lines,
                "resumed": done.resumed,
                "sha256": done.digest,
            },
        )


@Parameter(name="*", group=Group("The original client's logs"))
@dataclass(frozen=True, slots=True, kw_only=True)
class FromV1:
    """A log of the original client, in place of a file."""

    from_v1: Annotated[
        str | None, Parameter(help='Its name; ["a", "b"] is one of parts (stringlist).')
    ] = None
    v1_profile: Annotated[
        Path | None, Parameter(help="The profile of the original client, which opens it.")
    ] = None
    v1_key_mode: Annotated[V1Mode, Parameter(help="What its keys are.")] = "string"
    v1_value_mode: Annotated[V1Mode, Parameter(help="What its values are.")] = "json"
    v1_unencrypted: Annotated[bool, flag("It was written with encrypt=False.")] = False
    v1_raw_name: Annotated[bool, flag("Its name_mode is raw.")] = False
    history: Annotated[bool, flag("Its whole history, not its contents alone.")] = False

    def opened(self, *, allow_plain_http: bool) -> v1.Log:
        """
        Raises:
            ConfigError: no such profile, or none at all.
        """
        if self.v1_profile is None:
            raise RequestError("--from-v1 needs --v1-profile, the original client's profile")
        name = log_name(self.from_v1 or "")
        name_mode = "string" if isinstance(name, str) else "stringlist"
        try:
            profile = v1.profileFromJson(self.v1_profile.read_bytes())
        except OSError as error:
            raise ConfigError(f"{self.v1_profile} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(
                f"{self.v1_profile} is no profile of the original client: {error}"
            ) from error
        try:
            return v1.Log(
                name,
                profile,
                self.v1_key_mode,
                self.v1_value_mode,
                encrypt=not self.v1_unencrypted,
                name_mode="raw" if self.v1_raw_name else name_mode,
                allow_plain_http=allow_plain_http,
            )
        except (ValueError, TypeError) as error:
            raise RequestError(f"no log of the original client: {error}") from error


NO_V1 = FromV1()


def import_(
    *what: str,
    group: Annotated[
        str | None, Parameter(help="Group of a log that is made; else the original's.")
    ] = None,
    into_existing: Annotated[
        bool, flag("Add entries to a log that holds others; equal ones stay as they are.")
    ] = False,
    original: FromV1 = NO_V1,
    common: Common = DEFAULT,
) -> None:
    """Bring an export into a log, or a log of the original client; and compare in the end.

    Interrupted or killed, the same command goes on where it was; no commit enters twice.
    Nothing is written of a file that is cut off or altered.

    Parameters
    ----------
    what
        FILE [LOG]: an export (- is stdin), and the log's name if it is to have another; with
        --from-v1, LOG alone.
    """
    output = Output(common)
    names = list(what)
    file = names.pop(0) if original.from_v1 is None and names else None
    if len(names) > 1 or (file is None and original.from_v1 is None):
        raise RequestError("FILE [LOG] expected, or --from-v1 NAME [LOG]")
    if file is not None and original != NO_V1:
        raise RequestError("--history and --v1-… go with --from-v1; a file is what it is")
    name = log_name(names[0]) if names else None

    async def run(client: AsyncClient, tell: OnProgress) -> Imported:
        if file is None:
            opened = original.opened(allow_plain_http=common.allow_plain_http)
            return await import_from_v1(
                client,
                opened,
                name,
                history=original.history,
                group=group,
                into_existing=into_existing,
                on_progress=tell,
            )
        with _readable(file) as path:
            return await import_log(
                client,
                path,
                name,
                group=group,
                into_existing=into_existing,
                on_progress=tell,
            )

    _tell_imported(_transferred(run, common, output), output)


def _tell_imported(done: Imported, output: Output) -> None:
    if done.shortened:
        output.note(f"{done.shortened:,} sources were shortened, to say where they come from")
    output.item(
        f"imported {done.done:,} {done.unit} into {name_text(done.name)} at v{done.version}"
        f"{_of_them(done.resumed, 'were there already')}; compared, and equal",
        {
            "name": done.name,
            "version": done.version,
            done.unit: done.done,
            "resumed": done.resumed,
            "commits": done.commits,
            "shortened": done.shortened,
        },
    )


def _of_them(count: int, what: str) -> str:
    return f" ({count:,} of them {what})" if count else ""


@contextmanager
def _readable(file: str) -> Iterator[Path]:
    """The file itself; what comes on stdin is kept aside, because it is read twice."""
    if file not in _STREAMS:
        yield Path(file)
        return
    with tempfile.NamedTemporaryFile(prefix="indelible-import-") as kept:  # mode 0600
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
        yield Path(kept.name)


def _transferred(
    work: Callable[[AsyncClient, OnProgress], Coroutine[Any, Any, R]],
    common: Common,
    output: Output,
) -> R:
    async def run(tell: OnProgress) -> R:
        async with AsyncClient(
            common.profile,
            database=common.database,
            timeout_seconds=common.timeout_seconds,
            ca_file=common.ca_file,
            allow_plain_http=common.allow_plain_http,
        ) as client:
            return await work(client, tell)

    try:
        with _shown(common, output) as tell:
            return asyncio.run(run(tell))
    except KeyboardInterrupt:
        output.note("interrupted: the same command goes on from here")
        raise


@contextmanager
def _shown(common: Common, output: Output) -> Iterator[OnProgress]:
    if common.quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with _bar(common) as bar:
            yield _OnTerminal(bar)
    else:
        yield _InLines(output)


class _InLines:
    """Says how far a transfer is, every LINE_SECONDS and when a phase ends."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase != self._phase:
            self._phase, self._began, self._told = progress.phase, now, now
            self._from = progress.done
        elif now - self._told >= LINE_SECONDS:
            self._told = now
            self._output.note(self._line(progress, now - self._began))

    def _line(self, progress: Progress, seconds: float) -> str:
        rate = (progress.done - self._from) / seconds
        if progress.total is None:
            return f"{progress.phase}: {progress.done:,} {progress.unit}, {rate:,.0f}/s"
        left = f", {(progress.total - progress.done) / rate:,.0f} s left" if rate else ""
        share = 100 * progress.done // max(progress.total, 1)
        return (
            f"{progress.phase}: {progress.done:,} of {progress.total:,} {progress.unit} "
            f"({share} %), {rate:,.0f}/s{left}"
        )


class _OnTerminal:
    """A bar for each phase."""

    def __init__(self, bar: "Bar") -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, progress: Progress) -> None:
        task = self._tasks.get(progress.phase)
        if task is None:
            task = self._tasks[progress.phase] = self._bar.add_task(
                progress.phase,
                total=progress.total,
                completed=progress.done,
                unit=progress.unit,
                began=progress.done,
            )
        self._bar.update(task, completed=progress.done)


def _bar(common: Common) -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class CountColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            total = "" if task.total is None else f"/{task.total:,.0f}"
            return Text(f"{task.completed:,.0f}{total} {task.fields['unit']}")

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            since = task.completed - task.fields["began"]
            speed = task.finished_speed or task.speed or since / max(task.elapsed or 0.0, 0.001)
            return Text(f"{speed:,.0f}/s")

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        CountColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, no_color=not wants_colour(sys.stderr, common.color)),
    )
