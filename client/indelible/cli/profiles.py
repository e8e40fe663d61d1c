"""`indelible init`: credentials and a new master key become a profile."""

import base64
import secrets
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from indelible.cli.options import flag
from indelible.cli.values import STDIN
from indelible.config import MASTER_KEY_BYTES, Profile, read_credentials
from indelible.errors import ConfigError

_MAX_CREDENTIALS_BYTES = 64 << 10


def init(
    *,
    credentials: Annotated[
        str,
        Parameter(help="File with the credentials, or - for stdin.", allow_leading_hyphen=True),
    ],
    profile: Annotated[Path | None, Parameter(help="Where to write the profile.")] = None,
    force: Annotated[bool, flag("Replace a profile that is there, and lose its key.")] = False,
) -> None:
    """Make a master key on this machine, and write the profile that holds it.

    The credentials come from the service's operator: endpoint_url, customer_id and apikey,
    as JSON. Whoever loses the profile loses what it sealed: keep a copy where only you can
    read it.
    """
    sys.stderr.write(f"profile written to {make_profile(credentials, profile, force=force)}\n")


def make_profile(credentials: str, path: Path | None, *, force: bool) -> Path:
    """Where the profile was written. `credentials` is a file, or `-` for stdin.

    Raises:
        ProfileExistsError: there is one, and `force` is false.
        ConfigError: no such file, or no credentials in it.
    """
    members = read_credentials(_read(credentials))
    key = base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode()
    return Profile(**members, master_key_base64=key).save(path, overwrite=force)


def _read(credentials: str) -> bytes:
    if credentials in STDIN:
        return sys.stdin.buffer.read(_MAX_CREDENTIALS_BYTES)
    try:
        with Path(credentials).open("rb") as file:
            return file.read(_MAX_CREDENTIALS_BYTES)
    except OSError as error:
        raise ConfigError(f"{credentials} cannot be read: {error.strerror}") from error
