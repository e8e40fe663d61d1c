"""Indelible: end-to-end encrypted, versioned logs that wake their readers with diffs.

```python
with indelible.Client() as client:
    log = client.log("config", create=True)
    log.set("theme", "dark")
    for diff in log.follow(after=0):
        ...
```

`AsyncClient` is the same with `await`. Five words: a *profile* holds your keys, a *log* is a
versioned map, an *entry* one of its keys, a *version* what each commit makes of it, and to
*follow* is to be told of every one. `indelible.v1` is the drop-in for code that was written
for the original library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

# Nothing is loaded before it is used: a command that only prints its help, or reads a
# profile, should not wait for an HTTP client.
if TYPE_CHECKING:
    from indelible.answers import (
        Change,
        Commit,
        Description,
        Diff,
        Entry,
        Forgotten,
        KeyChange,
        Version,
    )
    from indelible.blocking import Client, Log, Mirror, Projection, Transaction, View, Webhooks
    from indelible.client import AsyncClient
    from indelible.commands import (
        Command,
        Delete,
        ExpectAbsent,
        ExpectEntry,
        Insert,
        Remove,
        Update,
        Upsert,
    )
    from indelible.config import Profile
    from indelible.errors import (
        CommitId,
        ConfigError,
        ConflictError,
        DeniedError,
        ErrorCode,
        ExportError,
        IndelibleError,
        NotFoundError,
        OutcomeUnknownError,
        ProfileExistsError,
        RequestError,
        UnavailableError,
        UnsealError,
        VerificationError,
        WebhookError,
    )
    from indelible.log import AsyncLog, AsyncView
    from indelible.mirroring import AsyncMirror
    from indelible.notifying import AsyncWebhooks, Attempt, Delivery, Webhook, WebhookKey
    from indelible.projecting import AsyncProjection
    from indelible.transacting import AsyncTransaction, Transacted

__all__ = [
    "AsyncClient",
    "AsyncLog",
    "AsyncMirror",
    "AsyncProjection",
    "AsyncTransaction",
    "AsyncView",
    "AsyncWebhooks",
    "Attempt",
    "Change",
    "Client",
    "Command",
    "Commit",
    "CommitId",
    "ConfigError",
    "ConflictError",
    "Delete",
    "Delivery",
    "DeniedError",
    "Description",
    "Diff",
    "Entry",
    "ErrorCode",
    "ExpectAbsent",
    "ExpectEntry",
    "ExportError",
    "Forgotten",
    "IndelibleError",
    "Insert",
    "KeyChange",
    "Log",
    "Mirror",
    "NotFoundError",
    "OutcomeUnknownError",
    "Profile",
    "ProfileExistsError",
    "Projection",
    "Remove",
    "RequestError",
    "Transacted",
    "Transaction",
    "UnavailableError",
    "UnsealError",
    "Update",
    "Upsert",
    "VerificationError",
    "Version",
    "View",
    "Webhook",
    "WebhookError",
    "WebhookKey",
    "Webhooks",
]

_HOMES = {
    "answers": (
        "Change",
        "Commit",
        "Description",
        "Diff",
        "Entry",
        "Forgotten",
        "KeyChange",
        "Version",
    ),
    "blocking": ("Client", "Log", "Mirror", "Projection", "Transaction", "View", "Webhooks"),
    "client": ("AsyncClient",),
    "commands": (
        "Command",
        "Delete",
        "ExpectAbsent",
        "ExpectEntry",
        "Insert",
        "Remove",
        "Update",
        "Upsert",
    ),
    "config": ("Profile",),
    "errors": (
        "CommitId",
        "ConfigError",
        "ConflictError",
        "DeniedError",
        "ErrorCode",
        "ExportError",
        "IndelibleError",
        "NotFoundError",
        "OutcomeUnknownError",
        "ProfileExistsError",
        "RequestError",
        "UnavailableError",
        "UnsealError",
        "VerificationError",
        "WebhookError",
    ),
    "log": ("AsyncLog", "AsyncView"),
    "mirroring": ("AsyncMirror",),
    "notifying": ("AsyncWebhooks", "Attempt", "Delivery", "Webhook", "WebhookKey"),
    "projecting": ("AsyncProjection",),
    "transacting": ("AsyncTransaction", "Transacted"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
