"""Rules that the product's code is held to, beyond those of the linters.

Each rule looks at one parsed file and yields the lines that break it.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

Rule = Callable[[ast.Module, Path], Iterator[int]]

_SECRET = re.compile(r"(?:^|_)(?:apikey|api_key|master_key|secret|password|mac|hmac|tag|siv)s?$")
_STORE = "indelible_server/store"
_UNSAFE = {"pickle", "cPickle", "dill", "shelve", "marshal", "jsonpickle", "cloudpickle", "yaml"}


def no_unsafe_decoders(tree: ast.Module, _path: Path) -> Iterator[int]:
    """Nothing that builds objects of what it reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0]}
        else:
            continue
        if names & _UNSAFE:
            yield node.lineno


def no_code_from_text(tree: ast.Module, _path: Path) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (
            ast.unparse(node.func) in ("eval", "exec", "compile", "os.system", "os.popen")
            or any(word.arg == "shell" and _is_true(word.value) for word in node.keywords)
        ):
            yield node.lineno


def _is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and bool(node.value)


def secrets_compared_in_constant_time(tree: ast.Module, _path: Path) -> Iterator[int]:
    """`==` on what is named like a secret; a comparison with a constant tells nothing."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            continue
        sides = (node.left, *node.comparators)
        if any(isinstance(side, ast.Constant) for side in sides):
            continue
        if any(_SECRET.search(_name(side)) for side in sides):
            yield node.lineno


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def store_keys_made_in_one_place(tree: ast.Module, path: Path) -> Iterator[int]:
    """Only `store/keys.py` makes names of keys; no other key of a command is put together."""
    if _STORE not in path.as_posix() or path.name == "keys.py":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and _begins_with_brace(node):
            yield node.lineno
        if isinstance(node, ast.Call) and _name(node.func) == "execute_command":
            for key in node.args[1:2]:
                if _put_together(key):
                    yield key.lineno


def _begins_with_brace(text: ast.JoinedStr) -> bool:
    first = text.values[0] if text.values else None
    return isinstance(first, ast.Constant) and str(first.value).startswith("{")


def _put_together(argument: ast.expr) -> bool:
    if isinstance(argument, ast.JoinedStr):
        return True
    if isinstance(argument, ast.BinOp):
        return any(
            isinstance(side, ast.Constant) and isinstance(side.value, str)
            for side in (argument.left, argument.right)
        )
    return isinstance(argument, ast.Call) and _name(argument.func) == "format"


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        no_unsafe_decoders,
        no_code_from_text,
        secrets_compared_in_constant_time,
        store_keys_made_in_one_place,
    )
}


def broken(rule: Rule, path: Path, text: str) -> list[str]:
    return [f"{path}:{line}" for line in rule(ast.parse(text), path)]
