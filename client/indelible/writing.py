"""Commits: laid out, signed, sent, and sent again until their outcome is known.

Owns the chains of one log: each has one commit in flight and numbers that rise, so that the
service takes a commit once however often it arrives. Knows nothing of what is sealed within.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nacl.utils
from indelible_protocol import limits, merkle, messages
from indelible_protocol.commands import Command, Op, check_size, encode, encode_body
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import CHAIN_BYTES, ChainId, LogId
from indelible_protocol.records import (
    CommitKind,
    Forget,
    Header,
    commit_hash,
    control_chain,
    control_commands,
)
from indelible_protocol.signing import SignedCommit, body_root, sign_commit

from indelible.answers import Commit
from indelible.codec import in_turns
from indelible.errors import (
    CommitId,
    IndelibleError,
    NotFoundError,
    OutcomeUnknownError,
    RequestError,
    UnavailableError,
    VerificationError,
)
from indelible.handle import Handle
from indelible.opening import Membership
from indelible.remote import held
from indelible.retry import Attempts

MAX_CHAINS = 16

_log = logging.getLogger("indelible")


@dataclass(slots=True)
class Chain:
    """`in_doubt`: a commit up to `seq` may still arrive at the service and be judged."""

    id: ChainId
    seq: int = 0
    in_doubt: bool = False


class Chains:
    """Lends chains, at most MAX_CHAINS at a time, each to one commit."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Chain] = []
        self._lent = asyncio.Semaphore(MAX_CHAINS)

    @asynccontextmanager
    async def chain(self, timeout_seconds: float) -> AsyncIterator[Chain]:
        """A chain whose last commit is settled; given back unless its new one is not.

        Raises:
            UnavailableError: all were lent for `timeout_seconds`.
        """
        if self._pid != os.getpid():
            self._begin()  # a forked child must not number commits as its parent does
        lent = self._lent
        try:
            async with asyncio.timeout(timeout_seconds):
                await lent.acquire()
        except TimeoutError:
            raise UnavailableError(
                f"{MAX_CHAINS} other commits of this log were under way all the time"
            ) from None
        try:
            chain = self._idle.pop() if self._idle else Chain(_new_chain_id())
            # Not in a finally: an outcome that nobody waited for leaves the chain in doubt.
            try:
                yield chain
            except IndelibleError:
                if not chain.in_doubt:
                    self._idle.append(chain)
                raise
            self._idle.append(chain)
        finally:
            lent.release()


def _new_chain_id() -> ChainId:
    return ChainId(nacl.utils.random(CHAIN_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A commit before it has a chain: its body, and what its header says of it.

    `membership` is the one whose keys sealed the body: the header must name no other epoch.
    """

    membership: Membership
    commands: int
    body: bytes
    body_root: bytes
    expect_version: int | None = None
    source: bytes = b""
    kind: CommitKind = CommitKind.DATA


async def draft(
    membership: Membership,
    commands: Sequence[Command],
    *,
    expect_version: int | None = None,
    source: str = "",
) -> Draft:
    """
    Raises:
        RequestError: TOO_LARGE, naming the limit; or no commands at all.
    """
    pieces = await in_turns(commands, encode)
    body = b"".join(pieces)
    try:
        check_size(
            len(pieces),
            len(body),
            max_commands=membership.max_commands,
            max_bytes=membership.max_commit_bytes,
        )
    except ProtocolError as error:
        raise RequestError(str(error), code=error.code) from error
    return Draft(
        membership=membership,
        commands=len(pieces),
        body=body,
        body_root=merkle.root_of(pieces),
        expect_version=expect_version,
        source=_source_bytes(source),
    )


def forget_draft(membership: Membership, before: int) -> Draft:
    """The owner's word that versions below `before` may be forgotten."""
    records = control_chain((Forget(before=before),), head=membership.ctl_head)
    commands = control_commands(records)
    return Draft(
        membership=membership,
        commands=len(commands),
        body=encode_body(commands),
        body_root=body_root(commands),
        kind=CommitKind.CONTROL,
    )


def _source_bytes(source: str) -> bytes:
    if not isinstance(source, str):
        raise RequestError(f"source is a {type(source).__name__}, a string expected")
    try:
        return source.encode()
    except UnicodeEncodeError:
        raise RequestError("source holds half a character") from None


class Writer:
    """Makes one log's commits."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._chains = Chains()

    async def commit(self, draft: Draft, *, ticket: str = "") -> Commit:
        """The outcome of `draft`; `ticket` as in `RemoteLog.commit`.

        Raises:
            OutcomeUnknownError: no answer until the deadline; the commit may be in, now or
                later.
            IndelibleError: any other: the commit is not in, and will not be.
        """
        attempts = Attempts(self._handle.service.timeout_seconds)
        async with self._chains.chain(attempts.remaining_seconds) as chain:
            signed = self._signed(chain, draft)
            return await self._settle(chain, signed, attempts, ticket=ticket)

    async def settle(self, commit_id: CommitId) -> Commit:
        """The outcome of a commit that was sent before; sends it again for that.

        Raises:
            As `commit`, and RequestError for another log's.
        """
        if commit_id.log_id != self._handle.membership.log_id:
            raise RequestError("the commit to settle belongs to another log")
        header = Header.decode(commit_id.header)
        chain = Chain(header.chain, header.seq, in_doubt=True)
        return await self._settle(
            chain,
            SignedCommit(
                header=commit_id.header, signature=commit_id.signature, body=commit_id.body
            ),
            Attempts(self._handle.service.timeout_seconds),
        )

    def _signed(self, chain: Chain, draft: Draft) -> SignedCommit:
        membership, identity = draft.membership, self._handle.identity
        chain.seq += 1
        memo_ct = b""
        if draft.source:
            memo_ct = membership.keys.seal_memo(chain.id, chain.seq, draft.source)
            if len(memo_ct) > limits.MAX_MEMO_BYTES:
                raise RequestError(
                    f"source of {len(draft.source)} bytes: at most {limits.MAX_MEMO_BYTES} "
                    "are allowed once it is sealed",
                    code=ErrorCode.TOO_LARGE,
                )
        header = Header(
            kind=draft.kind,
            log_id=membership.log_id,
            writer=identity.pk_sign,
            chain=chain.id,
            seq=chain.seq,
            generation=membership.keys.generation,
            epoch=membership.keys.epoch,
            ctl_seq=membership.ctl_seq,
            expect_version=draft.expect_version,
            seen_size=self._handle.remote.known_version + 1,
            client_time_ms=time.time_ns() // 1_000_000,
            command_count=draft.commands,
            body_root=draft.body_root,
            body_bytes=len(draft.body),
            memo_ct=memo_ct,
        )
        return sign_commit(header, draft.body, identity.secret_sign_key)

    async def _settle(
        self,
        chain: Chain,
        signed: SignedCommit,
        attempts: Attempts,
        *,
        ticket: str = "",
    ) -> Commit:
        """Sends the same bytes until there is an answer to them, or the deadline passes."""
        message = messages.Commit(
            header=signed.header, signature=signed.signature, body=signed.body
        )
        while True:
            try:
                committed = held(
                    await self._handle.remote.commit(
                        message, attempts.remaining_seconds, ticket=ticket
                    )
                )
            except UnavailableError as error:
                await self._after(error, chain, signed, attempts)
            except VerificationError as error:
                # It was answered, but what the answer was is lost.
                garbled = UnavailableError(str(error), may_have_applied=True)
                await self._after(garbled, chain, signed, attempts)
            except IndelibleError as rejection:
                if chain.in_doubt:
                    await self._fence(chain, signed, rejection)
                raise
            else:
                chain.in_doubt = False
                return Commit(version=committed.version, changed=committed.changed)

    async def _after(
        self, error: UnavailableError, chain: Chain, signed: SignedCommit, attempts: Attempts
    ) -> None:
        """Pauses before the next send, or raises what the caller must know instead."""
        chain.in_doubt = chain.in_doubt or error.may_have_applied
        if not chain.in_doubt and not error.retryable:
            raise error
        try:
            await attempts.pause(error)
        except UnavailableError:
            if not chain.in_doubt:
                raise
            raise _unknown(signed, str(error)) from error

    async def _fence(self, chain: Chain, signed: SignedCommit, rejection: IndelibleError) -> None:
        """Makes a rejection final, after an earlier send of the same commit was lost.

        That copy may still be on its way and be judged anew, and rejections are not recorded.
        A commit without effect that has the chain's next number ends that: the service
        refuses lower ones.

        Raises:
            OutcomeUnknownError: it could not be made certain.
        """
        if rejection.code is ErrorCode.STALE_EPOCH or isinstance(rejection, NotFoundError):
            chain.in_doubt = False  # no epoch and no log comes back
            return
        if rejection.code is ErrorCode.IDEMPOTENCY_EXPIRED:
            raise _unknown(signed, str(rejection)) from rejection
        nothing = await draft(self._handle.membership, [Command(Op.DELETE, nacl.utils.random(32))])
        _log.info("commit.fenced: %s", rejection)
        chain.in_doubt = False
        try:
            await self._settle(
                chain,
                self._signed(chain, nothing),
                Attempts(self._handle.service.timeout_seconds),
            )
        except NotFoundError:
            return
        except IndelibleError as error:
            chain.in_doubt = True
            raise _unknown(signed, str(error)) from error


def _unknown(signed: SignedCommit, reason: str) -> OutcomeUnknownError:
    commit_id = CommitId(
        log_id=LogId(Header.decode(signed.header).log_id),
        commit_hash=commit_hash(signed.header),
        header=signed.header,
        signature=signed.signature,
        body=signed.body,
    )
    _log.warning("commit.left_unknown %s: %s", commit_id, reason)
    return OutcomeUnknownError(
        f"whether commit {commit_id} is in the log is not known: {reason}; "
        "log.settle(error.commit_id) asks again",
        commit_id=commit_id,
        code=ErrorCode.OUTCOME_UNKNOWN,
    )
