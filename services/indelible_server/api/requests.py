"""What a request is about: the tenant, the database, the log; from the URL and the key alone."""

import re

from aiohttp import web
from indelible_protocol import limits
from indelible_protocol.commands import LogKind
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import from_base64url, parse_log_id

from indelible_server.api.messages import header
from indelible_server.api.middlewares import TENANT
from indelible_server.api.services import SERVICES
from indelible_server.store.admission import LogIdentity
from indelible_server.store.errors import Refusal
from indelible_server.store.names import Scope

DEFAULT_DATABASE = "default"
_DATABASE = re.compile(r"[A-Za-z0-9_-]{1,64}")


async def authenticated(request: web.Request) -> str:
    """The tenant that the request's API key belongs to.

    Raises:
        Refusal: BAD_API_KEY.
        ProtocolError: two keys.
    """
    credential = await request.app[SERVICES].authenticator.authenticate(apikey_of(request))
    request[TENANT] = credential.tenant
    return credential.tenant


def apikey_of(request: web.Request) -> str:
    """
    Raises:
        Refusal: BAD_API_KEY: there is none.
        ProtocolError: two keys.
    """
    scheme, _, apikey = (header(request, "Authorization") or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Refusal(ErrorCode.BAD_API_KEY, "Authorization: Bearer <apikey> expected")
    return apikey.strip()


async def scope_of(request: web.Request) -> Scope:
    tenant = await authenticated(request)
    database = header(request, "Indelible-Database")
    if database is None:
        database = DEFAULT_DATABASE
    elif not is_database(database):
        raise ProtocolError("Indelible-Database: 1 to 64 of A-Z a-z 0-9 _ - expected")
    return Scope(tenant=tenant, database=database)


def is_database(name: str) -> bool:
    return name == DEFAULT_DATABASE or _DATABASE.fullmatch(name) is not None


async def log_of(request: web.Request) -> LogIdentity:
    """
    Raises:
        Refusal: BAD_API_KEY, NONEXISTENT_LOG (absent, foreign and other databases alike).
    """
    scope = await scope_of(request)
    log_id = parse_log_id(request.match_info["log_id"])
    identity = await request.app[SERVICES].logs.identify(scope.tenant, log_id)
    if identity.database != scope.database:
        raise Refusal(ErrorCode.NONEXISTENT_LOG, "there is no such log")
    return identity


def name_of(request: web.Request, kind: LogKind) -> bytes:
    name = from_base64url(request.match_info["name"], "name")
    if kind is LogKind.SEALED and len(name) != 32:
        raise ProtocolError(f"a sealed log's name token has 32 bytes, not {len(name)}")
    if not 1 <= len(name) <= limits.MAX_NAME_BYTES:
        raise ProtocolError(f"a name has 1 to {limits.MAX_NAME_BYTES} bytes, not {len(name)}")
    return name


def key_of(request: web.Request, identity: LogIdentity) -> bytes:
    return check_key(from_base64url(request.match_info["key"], "key"), identity)


def check_key(key: bytes, identity: LogIdentity) -> bytes:
    if identity.kind is LogKind.SEALED and len(key) != 32:
        raise ProtocolError(f"a key of a sealed log is a token of 32 bytes, not {len(key)}")
    if not 1 <= len(key) <= limits.MAX_KEY_BYTES:
        raise ProtocolError(f"a key has 1 to {limits.MAX_KEY_BYTES} bytes, not {len(key)}")
    return key
