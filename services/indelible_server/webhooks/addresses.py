"""Which addresses a webhook may lead to, enforced where every connection begins.

`guard` is called by aiohttp with the address of each socket it is about to make, whatever
spelling, name or redirect led there: what it refuses is never connected to.
"""

import errno
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import AddrInfoType

SocketFactory = Callable[[AddrInfoType], socket.socket]

# `is_global` is right about most, and differs between versions of Python about these.
_NOT_IN_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
# Within it: IETF protocols (Teredo, ORCHID), documentation, 6to4.
_NOT_IN_V6 = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


class AddressRefused(OSError):
    """An address that webhooks may not lead to; no connection was attempted."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "webhooks may not lead to this address")


def may_connect(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is a public host's. Ways to spell IPv4 within IPv6 are not: they are refused."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _NOT_IN_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _NOT_IN_V6)


def guard(addr_info: AddrInfoType) -> socket.socket:
    """
    Raises:
        AddressRefused.
    """
    family, kind, protocol, _, place = addr_info
    host = str(place[0]).partition("%")[0]
    try:
        allowed = family in (socket.AF_INET, socket.AF_INET6) and may_connect(ip_address(host))
    except ValueError:
        allowed = False
    if not allowed:
        raise AddressRefused
    return socket.socket(family, kind, protocol)
