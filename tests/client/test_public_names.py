"""What `import indelible` gives, what it costs, and that the twins are twins."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import indelible
import pytest
from indelible import (
    AsyncClient,
    AsyncLog,
    AsyncMirror,
    AsyncProjection,
    AsyncTransaction,
    AsyncView,
    AsyncWebhooks,
    Client,
    Log,
    Mirror,
    Projection,
    Transaction,
    View,
    Webhooks,
    errors,
)

TWINS = [
    (AsyncClient, Client),
    (AsyncLog, Log),
    (AsyncMirror, Mirror),
    (AsyncProjection, Projection),
    (AsyncTransaction, Transaction),
    (AsyncView, View),
    (AsyncWebhooks, Webhooks),
]
# What only makes sense on one side, and the reason.
ONE_SIDED = {
    "__aenter__": "with",
    "__aexit__": "with",
    "__enter__": "with",
    "__exit__": "with",
    "__aiter__": "for",
    "__iter__": "for",
    "__contains__": "`in` cannot be awaited",
    "pages": "what the blocking twin reads",
}


def test_every_public_name_is_there() -> None:
    for name in indelible.__all__:
        assert getattr(indelible, name) is not None
        assert name in dir(indelible)
    assert indelible.__all__ == sorted(indelible.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = indelible.Nothing


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING and the table that imports at run time agree."""
    tree = ast.parse(Path(indelible.__file__).read_text())
    declared = {
        (module.split(".")[-1], alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (module := node.module or "").startswith("indel")
        for alias in node.names
    }
    imported = {(home, name) for name, home in indelible._HOME_OF.items()}
    assert declared == imported
    assert {name for _, name in declared} == set(indelible.__all__)


def test_every_error_is_public_and_derives_from_one() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert getattr(indelible, name) is kind
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, indelible.IndelibleError)


def members_of(kind: type) -> dict[str, Any]:
    return {
        name: inspect.getattr_static(kind, name)
        for name in dir(kind)
        if not name.startswith("_") or name == "__init__"
    }


def shape(signature: inspect.Signature) -> list[tuple[Any, ...]]:
    """Parameters; a function that is passed in is awaited by one twin and not by the other."""
    return [
        (p.name, p.kind, p.default, "" if p.name == "decide" else twinned(p.annotation))
        for p in signature.parameters.values()
    ]


def twinned(annotation: Any) -> str:
    return str(annotation).replace("log.AsyncLog", "blocking.Log")


@pytest.mark.parametrize(("twin", "other"), TWINS, ids=lambda kind: kind.__name__)
def test_the_twins_have_the_same_methods_parameters_and_words(twin: type, other: type) -> None:
    left, right = members_of(twin), members_of(other)
    assert left.keys() - ONE_SIDED.keys() == right.keys() - ONE_SIDED.keys()
    for name in left.keys() - ONE_SIDED.keys():
        assert isinstance(left[name], property) == isinstance(right[name], property), name
        if isinstance(left[name], property):
            continue
        if name == "__init__" and twin is not AsyncClient:
            continue  # nobody calls these
        theirs, ours = inspect.signature(left[name]), inspect.signature(right[name])
        assert shape(theirs) == shape(ours), name
        assert inspect.getdoc(left[name]) == inspect.getdoc(right[name]), name


def test_awaiting_is_the_only_difference_of_what_they_return() -> None:
    renamed = {
        "AsyncLog": "Log",
        "AsyncView": "View",
        "AsyncGenerator": "Generator",
        "mirroring.AsyncMirror": "blocking.Mirror",
    }
    for twin, other in TWINS[:2]:
        for name, method in members_of(twin).items():
            if not inspect.isfunction(method) or name in ONE_SIDED or name == "__init__":
                continue
            theirs = str(inspect.signature(method).return_annotation)
            ours = str(inspect.signature(members_of(other)[name]).return_annotation)
            for old, new in renamed.items():
                theirs = theirs.replace(f"log.{old}", f"blocking.{new}").replace(old, new)
            # A blocking generator has one parameter more: what it returns.
            assert theirs == re.sub(r"(Generator\[.*), None, None\]", r"\1, None]", ours), name


def test_importing_loads_no_http_client() -> None:
    code = "import indelible, sys; sys.exit('aiohttp' in sys.modules or 'nacl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
