"""Forgettings that are under way in this process.

One that asks begins it or joins it, and is told how far it is; it goes on when its asker leaves. A
process that dies leaves it to whoever asks again: what is done is in the store. Knows nothing
of HTTP, or of how a log forgets.
"""

import asyncio

import structlog
from indelible_protocol import messages
from indelible_protocol.commands import LogKind
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from msgspec import Struct

from indelible_server.store.admission import LogIdentity
from indelible_server.store.connection import end_tasks
from indelible_server.store.errors import Refusal
from indelible_server.store.forgetting import Advance, Forgetting
from indelible_server.store.logs import Logs

log = structlog.get_logger("indelible_server.api")

MAX_AT_ONCE = 4


class _Job(Struct, kw_only=True):
    advance: Advance
    task: "asyncio.Task[None] | None" = None


class Forgets:
    def __init__(self, forgetting: Forgetting, logs: Logs) -> None:
        self._forgetting = forgetting
        self._logs = logs
        self._jobs: dict[LogId, _Job] = {}  # one of each log, whatever it is asked to forget
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)

    async def begin(self, identity: LogIdentity, before: int) -> None:
        """Notes that it is to be done, if that may be.

        Raises:
            Refusal: UNAUTHORIZED_OPERATION in a sealed log whose owner has not signed that;
                NONEXISTENT_VERSION, LOG_REPLACED.
        """
        if identity.kind is LogKind.SEALED and not (
            await self._forgetting.has_begun(identity.log_id, before)
            or await self._logs.may_forget(identity, before)
        ):
            raise Refusal(
                ErrorCode.UNAUTHORIZED_OPERATION,
                "a sealed log forgets what its owner has signed: commit a Forget record first",
            )
        await self._forgetting.begin(identity.log_id, before)

    async def go_on(self, log_id: LogId, before: int, seconds: float) -> messages.Forgotten:
        """How far it is when it is done, or after `seconds`.

        Raises:
            Refusal: it ended with that; asked again it goes on.
        """
        task, job = self._joined(log_id, before)
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if done:
            task.result()
        outcome = await self._forgetting.outcome(log_id)
        is_done = outcome.forgotten >= before
        step, handled, total = job.advance
        return messages.Forgotten(
            before=before,
            first_version=outcome.first_version,
            done=is_done,
            step="done" if is_done else step,
            handled=handled,
            total=total,
            bytes_before=outcome.bytes_before,
            bytes_now=outcome.bytes_now,
        )

    def _joined(self, log_id: LogId, before: int) -> "tuple[asyncio.Task[None], _Job]":
        """What is under way in the log, if need be up to another version; else it begins."""
        job = self._jobs.get(log_id)
        if job is None or job.task is None:
            job = self._jobs[log_id] = _Job(advance=Advance("base", 0, 0))
            job.task = asyncio.create_task(self._run(log_id, before, job))
            job.task.add_done_callback(lambda task: self._ended(log_id, task))
        return job.task, job

    def _ended(self, log_id: LogId, task: "asyncio.Task[None]") -> None:
        del self._jobs[log_id]
        if not task.cancelled():
            task.exception()  # its askers may be gone; asyncio would complain otherwise

    async def close(self) -> None:
        """What is under way is left as it is."""
        await end_tasks(*(job.task for job in self._jobs.values() if job.task is not None))

    async def _run(self, log_id: LogId, before: int, job: _Job) -> None:
        def tell(advance: Advance) -> None:
            job.advance = advance

        async with self._turns:
            await self._forgetting.run(log_id, before, tell)
        outcome = await self._forgetting.outcome(log_id)
        log.info(
            "versions.forgotten",
            log_id=log_id.hex(),
            first_version=outcome.first_version,
            bytes_before=outcome.bytes_before,
            bytes_now=outcome.bytes_now,
        )
