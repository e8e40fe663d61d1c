"""Sends what is asked of one node in one round of the event loop together, over few connections;
at once what is first asked in a round after one that asked a single thing.

A command of its own costs a connection while it lasts and a system call each way; a hundred in
one batch cost little more than one, and the engine syncs their writes once. Everybody has their
own answer or error. Owns the queue, the connections and the deadlines; knows nothing of what is
asked, but which commands have small answers: what may be large keeps a connection to itself, so
that it holds up nobody.

Each connection carries one batch at a time. A cluster has one `Batcher` for each node; what must
end a batch there (`WAIT`) is one more command with a delivery of its own, behind those that
`_next_batch` took.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import hiredis
from redis._parsers import BaseParser  # its table of errors, which other clients share
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, RedisError  # noqa: A004

BATCHED = frozenset({"FCALL", "FCALL_RO", "GET", "HGET", "HMGET"})
MAX_BATCH = 256
MAX_BATCH_BYTES = 1 << 18
MAX_CONNECTIONS = 4
_LOOKS_PER_DEADLINE = 8
_GRACE_SECONDS = 0.01

Argument = bytes | str | int
Deliver = Callable[[Any], None]
# When it was asked, its bytes, who takes the answer or the exception, who may have left meanwhile.
Asked = tuple[float, bytes, Deliver, "asyncio.Future[Any] | None"]
_NOTHING_YET = object()


class NotSent(ConnectionError):
    """The command was certainly not sent."""


class AnswerLost(ConnectionError):
    """The command was sent; whether it was done is not known."""


class Batcher:
    """`make_connection` gives connections that are not connected yet.

    `timeout_seconds` is for a command as a whole, from asking to its answer; it may take an
    eighth more.
    """

    def __init__(
        self, make_connection: Callable[[], AbstractConnection], *, timeout_seconds: float
    ) -> None:
        self._make_connection = make_connection
        self._timeout_seconds = timeout_seconds
        self._queue: deque[Asked] = deque()
        self._wires: set[_Wire] = set()
        self._idle: list[_Wire] = []
        self._connecting: asyncio.Task[None] | None = None
        self._deadlines: asyncio.TimerHandle | None = None
        self._round_began = 0.0
        self._asked_this_round = 0
        self._was_lone = False  # the last round asked one thing
        self._is_scheduled = False
        self._is_closed = False

    async def execute(self, *command: Argument) -> Any:
        """The answer; nothing is sent if the caller leaves while it stands in line.

        Raises:
            NotSent, AnswerLost: and whatever error the store answers with.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.ask(command, partial(_settle, answer), answer)
        return await answer

    def ask(
        self,
        command: Sequence[Argument],
        deliver: Deliver,
        caller: "asyncio.Future[Any] | None" = None,
    ) -> None:
        """`deliver` is called once, with the answer or the exception that stands for it.

        It must not raise. Nothing is sent, nor delivered, if `caller` is done before.
        """
        if self._is_closed:
            deliver(NotSent("the client is closed"))
            return
        if not self._is_scheduled:
            loop = asyncio.get_running_loop()
            self._is_scheduled = True
            self._round_began = loop.time()
            loop.call_soon(self._end_round)
            if self._deadlines is None:
                self._look_again()
        self._asked_this_round += 1
        self._queue.append((self._round_began, packed(command), deliver, caller))
        if self._asked_this_round == 1 and self._was_lone and self._idle:
            self._send_queued()  # nobody else is likely to ask in this round

    def abandon(self) -> None:
        """Trusts no connection any more: what is under way ends with AnswerLost."""
        for wire in list(self._wires):
            wire.give_up("the connection is not trusted any more")

    async def close(self) -> None:
        """Whatever is not answered yet ends with NotSent or AnswerLost."""
        self._is_closed = True
        if self._deadlines is not None:
            self._deadlines.cancel()
        self._refuse(self._queue, "the client is closed")
        ends = [wire.gone for wire in self._wires]
        self.abandon()
        if self._connecting is not None:
            self._connecting.cancel()
            ends.append(self._connecting)
        if ends:
            await asyncio.wait(ends)

    def _end_round(self) -> None:
        self._is_scheduled = False
        self._was_lone, self._asked_this_round = self._asked_this_round == 1, 0
        self._send_queued()

    def _send_queued(self) -> None:
        while self._queue:
            if not self._idle:
                self._open_another()
                return
            batch = self._next_batch()
            if batch:
                self._idle.pop().send(batch)

    def _next_batch(self) -> list[Asked]:
        """In the order in which they were asked, without those whose caller has left."""
        batch: list[Asked] = []
        size = 0
        queue = self._queue
        while queue and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            asked = queue.popleft()
            if asked[3] is None or not asked[3].done():
                batch.append(asked)
                size += len(asked[1])
        return batch

    def _open_another(self) -> None:
        if self._connecting is None and len(self._wires) < MAX_CONNECTIONS:
            self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        connection = self._make_connection()
        try:
            await connection.connect()
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if not isinstance(error, (RedisError, OSError, TimeoutError)):
                raise
            if not self._wires:  # else another connection will send what waits
                self._refuse(self._queue, f"no connection ({type(error).__name__})")
            return
        finally:
            self._connecting = None
        wire = _Wire(connection, self._is_free, self._is_lost)
        self._wires.add(wire)
        if self._is_closed:
            wire.give_up("the client is closed")
        else:
            self._is_free(wire)

    def _is_free(self, wire: "_Wire") -> None:
        self._idle.append(wire)
        if self._queue:
            self._send_queued()

    def _is_lost(self, wire: "_Wire") -> None:
        self._wires.discard(wire)
        if wire in self._idle:
            self._idle.remove(wire)
        if self._queue and not self._is_closed:
            self._send_queued()

    def _look_again(self) -> None:
        pause = self._timeout_seconds / _LOOKS_PER_DEADLINE
        self._deadlines = asyncio.get_running_loop().call_later(pause, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        """One timer for all commands, running while there are any.

        A loop that was held up for seconds looks at its sockets before it says that anybody is
        late: the answer may lie there, or the command not even be sent.
        """
        loop = asyncio.get_running_loop()
        latest = loop.time() - self._timeout_seconds
        if any(wire.is_busy and wire.asked <= latest for wire in self._wires) or (
            self._queue and self._queue[0][0] <= latest
        ):
            self._deadlines = loop.call_later(_GRACE_SECONDS, self._end_late, latest)
        else:
            self._go_on_looking()

    def _end_late(self, latest: float) -> None:
        late: deque[Asked] = deque()
        while self._queue and self._queue[0][0] <= latest:
            late.append(self._queue.popleft())
        self._refuse(late, "every connection is busy")
        for wire in list(self._wires):
            if wire.is_busy and wire.asked <= latest:
                wire.give_up("no answer in time")
        self._go_on_looking()

    def _go_on_looking(self) -> None:
        self._deadlines = None
        if self._queue or any(wire.is_busy for wire in self._wires):
            self._look_again()

    @staticmethod
    def _refuse(queue: deque[Asked], reason: str) -> None:
        while queue:
            _, _, deliver, caller = queue.popleft()
            if caller is None or not caller.done():
                deliver(NotSent(reason))


class _Wire(asyncio.Protocol):
    """A connection that is set up, and the batch that is under way on it.

    `asked` is when the first command of the batch was asked; `gone` is done when the
    connection has ended.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        is_free: Callable[["_Wire"], None],
        is_lost: Callable[["_Wire"], None],
    ) -> None:
        # redis-py connects, authenticates and names itself; from here on the bytes are ours. Its
        # own reading and writing take a coroutine or two and a timer for each command.
        writer = connection._writer
        assert writer is not None
        self._connection, self._writer = connection, writer  # closed if let go of
        self._transport = cast(asyncio.Transport, writer.transport)
        self._transport.set_protocol(self)
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=BaseParser.parse_error,
            notEnoughData=_NOTHING_YET,
        )
        self._is_free, self._is_lost = is_free, is_lost
        self._deliveries: deque[Deliver] = deque()
        self._is_given_up = False
        self.asked = 0.0
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_busy(self) -> bool:
        return bool(self._deliveries)

    def send(self, batch: Sequence[Asked]) -> None:
        self.asked = batch[0][0]
        self._deliveries.extend([asked[2] for asked in batch])
        self._transport.write(b"".join([asked[1] for asked in batch]))

    def data_received(self, data: bytes) -> None:
        deliveries, reader = self._deliveries, self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOTHING_YET:
                if not deliveries:
                    self.give_up("an answer that nobody asked for")
                    return
                deliveries.popleft()(reply)
        except InvalidResponse:
            self.give_up("an answer that is no RESP")
            return
        if not deliveries and not self._is_given_up:
            self._is_free(self)

    def give_up(self, reason: str) -> None:
        """Ends the connection; whoever waits on it is told at once."""
        if self._is_given_up:
            return
        self._is_given_up = True
        self._transport.abort()
        while self._deliveries:
            self._deliveries.popleft()(AnswerLost(reason))
        self._is_lost(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.give_up("the connection was lost")
        self._connection._writer = self._connection._reader = None  # it would complain else
        if not self.gone.done():
            self.gone.set_result(None)


class BatchingRedis(Redis):
    """A client whose small commands travel in batches; it looks the same to its callers."""

    def __init__(self, *, connection_pool: ConnectionPool, timeout_seconds: float) -> None:
        super().__init__(connection_pool=connection_pool)
        self.batcher = Batcher(connection_pool.make_connection, timeout_seconds=timeout_seconds)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] in BATCHED:
            return await self.batcher.execute(*args)
        return await Redis.execute_command(self, *args, **options)

    def begin(self, command: Sequence[Argument], deliver: Deliver) -> None:
        """`execute_command` of a small command without a task, as `Batcher.ask`."""
        self.batcher.ask(command, deliver)

    def abandon(self) -> None:
        """Trusts no connection any more that carries batches."""
        self.batcher.abandon()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.batcher.close()
        await super().aclose(close_connection_pool)


def packed(command: Sequence[Argument]) -> bytes:
    packed: bytes = hiredis.pack_command(cast(Any, tuple(command)))
    return packed


def _settle(answer: "asyncio.Future[Any]", reply: object) -> None:
    if answer.done():  # its caller has left
        return
    if isinstance(reply, Exception):
        answer.set_exception(reply)
    else:
        answer.set_result(reply)
