"""Who sends a request: from the API key to the tenant, and from nothing else.

Remembers a valid key for a few seconds, which bounds how long a revoked one still works. A key
in use is asked for again before it is forgotten, so that nobody waits for that.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256

from indelible_protocol.errors import ErrorCode

from indelible_server.api.rates import Rates
from indelible_server.api.turns import Turns
from indelible_server.store.errors import Refusal
from indelible_server.store.shared_reads import SharedReads
from indelible_server.store.tenants import Credential, Tenants

REMEMBERED_SECONDS = 5.0
RENEWED_SECONDS = 2.5
_REMEMBERED = 10_000
_MAX_KEY_CHARS = 256


class Authenticator:
    """`now` is a monotonic clock in seconds."""

    def __init__(
        self, tenants: Tenants, rates: Rates, turns: Turns, now: Callable[[], float]
    ) -> None:
        self._tenants = tenants
        self._reads = SharedReads(self._read)
        self._rates = rates
        self._turns = turns
        self._now = now
        self._known: OrderedDict[bytes, tuple[Credential, float]] = OrderedDict()
        self._renewing: dict[bytes, asyncio.Task[Credential]] = {}

    async def authenticate(self, apikey: str) -> Credential:
        """Returns when it is the tenant's turn.

        Raises:
            Refusal: BAD_API_KEY, with the same words whatever is wrong with it; RATE_LIMITED.
        """
        credential = await self.judge(apikey)
        turn = self.admit(credential)
        if turn is not None:
            await turn
        return credential

    async def judge(self, apikey: str) -> Credential:
        """Whose it is, as of REMEMBERED_SECONDS ago at most; takes no turn and no rate.

        Raises:
            Refusal: BAD_API_KEY, or the store cannot be asked.
        """
        known = self.known(apikey)
        if known is not None:
            return known
        if not apikey or len(apikey) > _MAX_KEY_CHARS or not apikey.isascii():
            raise _bad_key()
        return await self._look(apikey, _digest(apikey))

    def known(self, apikey: str) -> Credential | None:
        """Whose it is, if it was valid of late."""
        if len(apikey) > _MAX_KEY_CHARS or not apikey.isascii():
            return None
        digest = _digest(apikey)
        known = self._known.get(digest)
        if known is None:
            return None
        credential, since = known
        age = self._now() - since
        if age >= REMEMBERED_SECONDS:
            return None
        if age >= RENEWED_SECONDS and digest not in self._renewing:
            self._renew(apikey, digest)
        return credential

    def _renew(self, apikey: str, digest: bytes) -> None:
        """One look for all who bring the key now; whoever needs its outcome looks for itself."""
        task = self._renewing[digest] = asyncio.ensure_future(self._look(apikey, digest))

        def ended(task: "asyncio.Task[Credential]") -> None:
            del self._renewing[digest]
            if not task.cancelled():
                task.exception()

        task.add_done_callback(ended)

    async def _look(self, apikey: str, digest: bytes) -> Credential:
        began = self._now()
        # When a thousand come back at once, one read for all of them is enough.
        [credential] = await self._reads.read([apikey])
        self._known.pop(digest, None)  # the newest stands last
        if credential is None:
            raise _bad_key()
        self._known[digest] = (credential, began)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return credential

    def admit(self, credential: Credential) -> "asyncio.Future[None] | None":
        """Done when it is the tenant's turn; None if it is now.

        Raises:
            Refusal: RATE_LIMITED.
        """
        self._rates.take(credential.tenant, credential.quota.requests_per_second)
        return self._turns.ask(credential.tenant)

    async def _read(self, apikeys: Sequence[str]) -> list[Credential | None]:
        return await asyncio.gather(*map(self._tenants.authenticate, apikeys))


@lru_cache(maxsize=1 << 10)
def _digest(apikey: str) -> bytes:
    return sha256(apikey.encode()).digest()


def _bad_key() -> Refusal:
    return Refusal(ErrorCode.BAD_API_KEY, "the API key is missing, unknown or revoked")
