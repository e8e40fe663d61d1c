# mypy: ignore-errors
"""Tells what the library offers: names, and the positional parameters of each."""

import inspect
import json

import indelible_log


def parameters(member):
    return [
        [p.name, p.kind.name, None if p.default is p.empty else repr(p.default)]
        for p in inspect.signature(member).parameters.values()
        if p.kind is not p.KEYWORD_ONLY
    ]


def offered(thing, path):
    found = {}
    for name, member in vars(thing).items():
        foreign = not getattr(member, "__module__", "").startswith("indelible")
        if foreign or (name.startswith("_") and name != "__iter__"):
            continue
        found[path + name] = parameters(member)
        if inspect.isclass(member):
            found |= offered(member, f"{path}{name}.")
    return found


print(json.dumps(offered(indelible_log, "") | offered(indelible_log.crypto, "crypto.")))
