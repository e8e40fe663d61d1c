# mypy: ignore-errors
"""Writes versions first to last of a log of orders, and tells each customer's sum at the end."""

import json
import sys
from pathlib import Path

from indelible_log import Cmd, Log, profileFromJson

profile = profileFromJson(Path(sys.argv[1]).read_text())
log = Log(sys.argv[2], profile)
first, last = map(int, sys.argv[3:])
log.create()


def order(number):
    return {"customer": "ABC"[number % 3], "amount": number}


for number in range(first, last + 1):
    commands = [Cmd.ExpectVersion(number - 1), Cmd.Insert(f"order {number}", order(number))]
    if number % 4 == 0:  # a cancelled order: sums go down as well
        commands.append(Cmd.Remove(f"order {number - 2}", order(number - 2)))
    log.update(commands)

sums = {}
for change in log:
    placed = change["entry"]["value"]
    customer = "sum of " + placed["customer"]
    sums[customer] = sums.get(customer, 0) + placed["amount"]
print(json.dumps(sums))
