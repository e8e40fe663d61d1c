"""The error codes as client/PROTOCOL.md lists them: the one table that every refusal is held to."""

import re
from dataclasses import dataclass
from pathlib import Path

PROTOCOL = Path(__file__).parents[2] / "client" / "PROTOCOL.md"
_ROW = re.compile(r"^\| ([A-Z_]+) \| (\d{4}) \| (\d{3}) \| (yes)? ?\| (yes)? ?\|$", re.MULTILINE)


@dataclass(frozen=True)
class Code:
    number: int
    status: int
    retryable: bool
    may_have_applied: bool


CODES = {
    name: Code(int(number), int(status), retryable == "yes", may_have_applied == "yes")
    for name, number, status, retryable, may_have_applied in _ROW.findall(PROTOCOL.read_text())
}
