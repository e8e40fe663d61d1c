"""`python -m deploy.cluster form --replicas 1 HOST:PORT …`: forms a cluster of running nodes."""

import argparse
import asyncio
import sys

from redis.exceptions import RedisError

from deploy.cluster.forming import Address, FormingError, form


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    forming = commands.add_parser("form", help="primaries first, then as many replicas of each")
    forming.add_argument("--replicas", type=int, default=1, help="of each primary (default: 1)")
    forming.add_argument("nodes", nargs="+", metavar="HOST:PORT[@BUS]", type=_address)
    options = parser.parse_args()
    try:
        asyncio.run(form(options.nodes, replicas=options.replicas))
    except (FormingError, RedisError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    hosts = ",".join(f"{node.host}:{node.port}" for node in options.nodes)
    print(f"formed: indelible-server api --redis 'redis://{hosts}/?cluster=true' …")
    return 0


def _address(text: str) -> Address:
    place, _, bus = text.partition("@")
    host, _, port = place.rpartition(":")
    return Address(host, int(port), int(bus) if bus else None)


if __name__ == "__main__":
    raise SystemExit(main())
