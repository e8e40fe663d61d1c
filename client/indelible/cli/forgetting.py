"""`indelible forget`: earlier versions go, and what they took is given back."""

from typing import Annotated

from indelible.answers import Forgotten
from indelible.cli.asking import ask
from indelible.cli.options import DEFAULT, Common, flag
from indelible.cli.output import Output, plural
from indelible.cli.sessions import log_of
from indelible.cli.values import name_text
from indelible.errors import NotFoundError, RequestError

_DOING = {
    "base": "keeping the contents at v{before}",
    "trim": "forgetting versions: {handled:,} of {total:,}",
    "sweep": "removing what they left: {handled:,} of {total:,}",
}


def forget(
    log: str,
    before: int,
    /,
    *,
    dry_run: Annotated[bool, flag("Say what would go; forget nothing.")] = False,
    yes: Annotated[bool, flag("Do not ask.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Make a version the first that can be read. There is no way back.

    What the log held from there on stays, whole. Earlier versions, what they held and who made
    them are gone, and what they took in the service is given back. Interrupted, the same
    command goes on where it was.

    Parameters
    ----------
    log
        The log's name.
    before
        The first version that stays.
    """
    output = Output(common)
    if before < 1:
        raise RequestError(f"{before} is no version to begin with: 1 or more is expected")
    with log_of(common, log) as opened:
        found = opened.describe()
        name = name_text(found.name)
        if before > found.version:
            raise NotFoundError(f"{name} is at v{found.version}: there is no v{before} yet")
        count = max(0, before - max(1, found.first_version))
        members = {"name": found.name, "before": before, "versions": count}
        if dry_run:
            text = f"would forget {plural(count, 'version')} of {name}: all before v{before}"
            output.item(text, {**members, "dry_run": True, "stored_bytes": found.stored_bytes})
            return
        if count and not yes:
            ask(
                f"forget {plural(count, 'version')} of {name}, all before v{before}? "
                "type its name: ",
                name,
                "nothing was forgotten",
            )
        shown = ""

        def tell(told: Forgotten) -> None:
            nonlocal shown
            text = _DOING.get(told.step, "").format(
                before=before, handled=told.handled, total=told.total
            )
            if text and text != shown:
                output.note(text)
                shown = text

        done = opened.forget(before, on_progress=tell)
        given = max(0, done.bytes_before - done.bytes_now)
        output.item(
            f"{name} begins at v{done.first_version}; {given:,} of {done.bytes_before:,} bytes "
            "were given back",
            {
                **members,
                "first_version": done.first_version,
                "bytes_before": done.bytes_before,
                "bytes_now": done.bytes_now,
            },
        )
