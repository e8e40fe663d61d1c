"""`indelible init`: credentials and a new master key become a profile."""

import base64
import secrets
import sys
from pathlib import Path

from indelible.config import MASTER_KEY_BYTES, Profile, read_credentials
from indelible.errors import ConfigError

_MAX_CREDENTIALS_BYTES = 64 << 10


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
    if credentials == "-":
        return sys.stdin.buffer.read(_MAX_CREDENTIALS_BYTES)
    try:
        with Path(credentials).open("rb") as file:
            return file.read(_MAX_CREDENTIALS_BYTES)
    except OSError as error:
        raise ConfigError(f"{credentials} cannot be read: {error.strerror}") from error
