"""Forgettings that are under way in this process.

One that asks begins it or joins it, and is told how far it is; it goes on when its asker leaves. A
process that dies leaves it to whoever asks again: what is done is in the store. Knows nothing
of HTTP, or of how a log forgets.
"""

import asyncio
from dataclasses import dataclass

import structlog
from indelible_protocol import messages
from indelible_protocol.commands import LogKind
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId

from indelible_server.store.admission import LogIdentity
from indelible_server.store.connection import end_tasks
from indelible_server.store.errors import Refusal
from indelible_server.store.forgetting import Advance, Forgetting
from indelible_server.store.logs import Logs

log = structlog.get_logger("indelible_server.api")

MAX_AT_ONCE = 4


@dataclass(slots=True, kw_only=True)
class _Job:
    task: "asyncio.Task[None]"
    advance: Advance


class Forgets:
    def __init__(self, forgetting: Forgetting, logs: Logs) -> None:
        self._forgetting = forgetting
        self._logs = logs
        self._jobs: dict[tuple[LogId, int], _Job] = {}
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
        job = self._jobs.get((log_id, before))
        if job is None:
            job = _Job(task=asyncio.ensure_future(asyncio.sleep(0)), advance=Advance("base", 0, 0))
            job.task = asyncio.create_task(self._run(log_id, before, job))
            self._jobs[log_id, before] = job
            job.task.add_done_callback(lambda _: self._jobs.pop((log_id, before)))
        done, _ = await asyncio.wait({job.task}, timeout=seconds)
        if done:
            job.task.result()
        outcome = await self._forgetting.outcome(log_id)
        step, handled, total = job.advance
        return messages.Forgotten(
            before=before,
            first_version=outcome.first_version,
            done=bool(done),
            step="done" if done else step,
            handled=handled,
            total=total,
            bytes_before=outcome.bytes_before,
            bytes_now=outcome.bytes_now,
        )

    async def close(self) -> None:
        """What is under way is left as it is."""
        await end_tasks(*(job.task for job in self._jobs.values()))

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
