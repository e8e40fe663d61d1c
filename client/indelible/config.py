"""Profiles: where the service is, and the two secrets that a user has.

A profile is a JSON file with exactly the four members that the original client reads. Owns
finding, reading, checking and writing it, and which endpoints may be spoken to; knows
nothing of what the master key is used for.
"""

import base64
import binascii
import ipaddress
import json
import os
import ssl
import stat
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from indelible.errors import ConfigError, ProfileExistsError
from indelible.files import write_private

PROFILE_VARIABLE = "INDELIBLE_PROFILE"
CREDENTIALS = ("endpoint_url", "customer_id", "apikey")
MASTER_KEY_BYTES = 32
_MAX_FILE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Credentials from the service's operator, and a master key that only the user has."""

    endpoint_url: str
    customer_id: str
    apikey: str = field(repr=False)
    master_key_base64: str = field(repr=False)

    def __post_init__(self) -> None:
        for member in fields(self):
            _check_text(member.name, getattr(self, member.name))
        _check_endpoint(self.endpoint_url)
        if len(self.master_key) != MASTER_KEY_BYTES:
            raise ConfigError(
                f"master_key_base64 holds {len(self.master_key)} bytes, {MASTER_KEY_BYTES} expected"
            )

    @property
    def master_key(self) -> bytes:
        """
        Raises:
            ConfigError: not standard base64.
        """
        try:
            return base64.b64decode(self.master_key_base64, validate=True)
        except (binascii.Error, ValueError):
            raise ConfigError("master_key_base64 is not standard base64") from None

    @classmethod
    def from_json(cls, text: str | bytes) -> "Profile":
        """
        Raises:
            ConfigError: naming the member that is missing, too many or of another type.
        """
        names = tuple(member.name for member in fields(cls))
        return cls(**_members(text, names, "the profile"))

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Profile":
        """The profile at `path`, else where INDELIBLE_PROFILE says, else the user's own.

        Raises:
            ConfigError: no such file, no profile in it, or others may read it.
        """
        found = profile_path(path)
        try:
            with found.open("rb") as file:
                _check_private(found, os.fstat(file.fileno()))
                text = file.read(_MAX_FILE_BYTES)
        except FileNotFoundError:
            raise ConfigError(
                f"no profile at {found}: make one with "
                "`indelible init --credentials FILE`, or name one in "
                f"{PROFILE_VARIABLE}"
            ) from None
        except OSError as error:
            raise ConfigError(f"the profile at {found} cannot be read: {error.strerror}") from error
        try:
            return cls.from_json(text)
        except ConfigError as error:
            raise ConfigError(f"{found}: {error}") from None

    def save(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """Writes the profile, for its owner's eyes only, whole or not at all.

        Raises:
            ProfileExistsError: there is one; `overwrite` replaces it, and its master key.
        """
        target = profile_path(path)
        text = json.dumps(asdict(self), indent=2) + "\n"
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{target.parent} cannot be made: {error.strerror}") from error
        try:
            write_private(target, text.encode(), overwrite=overwrite)
        except FileExistsError:
            raise ProfileExistsError(
                f"there is a profile at {target}; its master key may be the only one that "
                "opens its logs"
            ) from None
        except OSError as error:
            raise ConfigError(f"{target} cannot be written: {error.strerror}") from error
        return target


def read_credentials(text: str | bytes) -> dict[str, str]:
    """The three members that the service's operator hands out.

    Raises:
        ConfigError: others than those three; a master key above all, which is never anyone
            else's to hand out.
    """
    return _members(text, CREDENTIALS, "the credentials")


def profile_path(path: str | Path | None = None) -> Path:
    """`path`, else INDELIBLE_PROFILE, else `profile.json` in the user's configuration folder."""
    if path is not None:
        return Path(path).expanduser()
    named = os.environ.get(PROFILE_VARIABLE)
    if named:
        return Path(named).expanduser()
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(folder) if os.path.isabs(folder) else Path.home() / ".config"
    return base / "indelible" / "profile.json"


def tls_context(ca_file: str | Path | None = None) -> ssl.SSLContext:
    """Verifies certificates by the system's roots, or by those in `ca_file` alone.

    Raises:
        ConfigError: no certificates in that file.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"no certificates could be read from {ca_file}: {error}") from error


def check_transport(endpoint_url: str, *, allow_plain_http: bool) -> None:
    """Refuses to send an API key in clear, except to this machine or when told by name.

    Raises:
        ConfigError: `http://` to another machine.
    """
    parts = urlsplit(endpoint_url)
    if parts.scheme == "http" and not allow_plain_http and not _is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"endpoint_url is {endpoint_url}: http:// would carry the API key in clear to "
            "another machine. Use https://, or if the network between is yours "
            "allow_plain_http=True (--allow-plain-http)"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{name} is of type {type(value).__name__}, a string expected")
    if not value:
        raise ConfigError(f"{name} is empty")
    # Goes into a header; http.client and aiohttp would refuse it less clearly.
    if not value.isascii() or not value.isprintable():
        raise ConfigError(f"{name} holds characters that are not printable ASCII")


def _check_endpoint(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"endpoint_url is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"endpoint_url is {url!r}, https://HOST[:PORT] expected")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError("endpoint_url has a user, a query or a fragment; none expected")


def _members(text: str | bytes, names: tuple[str, ...], what: str) -> dict[str, str]:
    try:
        members = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        # The decoder's own words: they name a place, and never quote the text.
        raise ConfigError(f"{what}: not JSON ({error})") from None
    if not isinstance(members, dict):
        raise ConfigError(f"{what}: a JSON object expected, not a {type(members).__name__}")
    for name in members:
        if name == "master_key_base64" and name not in names:
            raise ConfigError(
                f"{what}: they hold master_key_base64. A master key is made on the user's own "
                "machine and known to nobody else; do not use this one"
            )
        if name not in names:
            raise ConfigError(f"{what}: {name!r} is not one of {', '.join(names)}")
    for name in names:
        if name not in members:
            raise ConfigError(f"{what}: {name} is missing")
        _check_text(name, members[name])
    return members


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _check_private(path: Path, status: os.stat_result) -> None:
    if os.name == "posix" and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"others than its owner may read or change {path}, which holds keys: chmod 600 {path}"
        )
