"""What `--redis` names: one engine, or a cluster by some of its nodes. Pure."""

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from msgspec import Struct

from indelible_server.settings import Settings, SettingsError
from indelible_server.store.slots import Address

_SCHEMES = ("redis", "rediss", "unix")
_PORT = 6379
_CLUSTER_WORDS = {"true": True, "1": True, "false": False, "0": False}


class StoreAddress(Struct, frozen=True, kw_only=True):
    """`seeds` are nodes of a cluster to ask for the others; none for a single engine."""

    url: str
    seeds: tuple[Address, ...]

    @property
    def is_cluster(self) -> bool:
        return bool(self.seeds)

    def url_of(self, node: Address) -> str:
        """The same user, password and options at another address."""
        parts = urlsplit(self.url)
        user, at, _ = parts.netloc.rpartition("@")
        host = f"[{node.host}]" if ":" in node.host else node.host
        return urlunsplit(parts._replace(netloc=f"{user}{at}{host}:{node.port}"))


def read_address(url: str) -> StoreAddress:
    """From `redis://USER:PASSWORD@HOST:PORT,HOST:PORT/?cluster=true`, or a single engine's URL.

    Raises:
        ValueError: another scheme, several addresses that are not said to be a cluster, or no
            port where one is.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"{parts.scheme!r} in the store's URL, redis, rediss or unix expected")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    word = options.pop("cluster", "false").lower()
    if word not in _CLUSTER_WORDS:
        raise ValueError(f"cluster is {word!r} in the store's URL, true or false expected")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not _CLUSTER_WORDS[word]:
        if len(hosts) > 1:
            raise ValueError("the store's URL names several addresses: add ?cluster=true")
        if parts.scheme != "unix":
            _address(hosts[0])
        single = url
        if "cluster" in parts.query:
            single = urlunsplit(parts._replace(query=urlencode(options)))
        return StoreAddress(url=single, seeds=())
    if parts.scheme == "unix":
        raise ValueError("a cluster is reached by redis:// or rediss://, not unix://")
    if parts.path.strip("/") not in ("", "0"):
        raise ValueError("a cluster has database 0 alone")
    plain = urlunsplit(parts._replace(path="", query=urlencode(options)))
    return StoreAddress(url=plain, seeds=tuple(_address(host) for host in hosts))


def check_store(settings: Settings) -> None:
    """
    Raises:
        SettingsError: the setting `redis` is no address of a store.
    """
    try:
        if settings.redis:
            read_address(settings.redis)
    except ValueError as error:
        raise SettingsError(f"redis: {error}") from None


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(_PORT)
    if not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{text!r} in the store's URL, HOST:PORT expected")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))
