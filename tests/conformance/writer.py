"""Writes a sealed log over HTTP, as PROTOCOL.md §5 asks of a writer: one commit at a time."""

import os
from copy import copy
from typing import Any

from tests.conformance.http import MSGPACK, Answer, Caller, url64
from tests.conformance.sealed import Command, Commit, SealedLog, token


class Writer:
    """A log that is not there before `found`; `genesis` are members of its genesis record."""

    def __init__(self, caller: Caller, name: str, *, form: str = MSGPACK, **genesis: Any) -> None:
        self.log = SealedLog(**genesis)
        self.name = f"/v2/names/{url64(token(name))}"
        self.path = f"/v2/logs/{url64(self.log.log_id)}"
        self.version = 0
        self._caller = caller
        self.form = form
        self._chain = os.urandom(16)
        self._seq = 0

    def found(self) -> Answer:
        return self.found_by(self.log.founding())

    def found_by(self, genesis: Commit, *, by: Caller | None = None, **asked: Any) -> Answer:
        body = {"genesis": genesis.message, **asked}
        return (by or self._caller).ask("PUT", self.name, body, form=self.form)

    def signed(self, *commands: Command | bytes, **members: Any) -> Commit:
        """The writer's next commit but for `members`; `commit` counts it, `send` does not."""
        right = {"chain": self._chain, "seq": self._seq + 1, "seen_size": self.version + 1}
        return self.log.commit(commands, **{**right, **members})

    def send(self, commit: Commit, *, query: str = "", by: Caller | None = None) -> Answer:
        caller = by or self._caller
        return caller.ask("POST", f"{self.path}/commits{query}", commit.message, form=self.form)

    def commit(self, *commands: Command | bytes, **members: Any) -> Answer:
        answer = self.send(self.signed(*commands, **members))
        if answer.status < 300:
            self._seq = members.get("seq", self._seq + 1)
            self.version = answer.content["version"]
        return answer

    def read(self, what: str) -> Answer:
        """`what` is behind the log's path."""
        return self._caller.ask("GET", self.path + what, form=self.form)

    def in_form(self, form: str) -> "Writer":
        """The same writer, speaking another form."""
        other = copy(self)
        other.form = form
        return other

    def opened(self) -> Any:
        """What stands under the log's name."""
        return self._caller.ask("GET", self.name, form=self.form).content
