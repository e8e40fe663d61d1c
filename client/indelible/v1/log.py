"""The original library's `Log`, its diffs, its commands and its profile.

Signatures, defaults and what is returned are the original's; nothing of ours is mixed in.
"""

import json
from base64 import standard_b64decode, standard_b64encode
from collections.abc import Iterable, Iterator
from typing import Any

from indelible.v1 import crypto
from indelible.v1.codec import encode_name, validate_mode, value_transformer
from indelible.v1.service import handleError, post

PROFILE_MEMBERS = frozenset({"customer_id", "apikey", "master_key", "endpoint_url"})
SILENCE_SECONDS = 30.0  # a service answers within this time, plus what it was asked to wait

Profile = dict[str, Any]
Change = dict[str, Any]  # {"change": "Add" | "Remove", "entry": {"key", "value"}, "version"}


def profileFromJson(profileJson: str | bytes) -> Profile:  # noqa: N802, N803
    """The profile that stands in a JSON text, its `master_key_base64` decoded.

    Raises:
        ValueError: no JSON, or a member is missing or unknown.
    """
    members = json.loads(profileJson)
    if not isinstance(members, dict) or "master_key_base64" not in members:
        raise ValueError("profile is missing master_key_base64")
    members["master_key"] = standard_b64decode(members.pop("master_key_base64"))
    validateProfile(members)
    return members


def validateProfile(profile: Profile) -> None:  # noqa: N802
    """
    Raises:
        ValueError: naming members that are missing or unknown.
    """
    if missing := sorted(PROFILE_MEMBERS - profile.keys()):
        raise ValueError(f"profile is missing {', '.join(missing)}")
    if unknown := sorted(profile.keys() - PROFILE_MEMBERS):
        raise ValueError(f"profile has unknown members: {', '.join(unknown)}")


def encrypt_name(encoded_name: bytes, profile: Profile) -> bytes:
    """The name sealed under the master key; equal names give equal bytes."""
    return crypto.encrypt(profile["master_key"], encoded_name)


class Cmd:
    """Commands of a transaction: all of them apply, or none."""

    class ExpectVersion:
        """Refuses the transaction unless the log is at `version`."""

        def __init__(self, version: int) -> None:
            self.type = "ExpectVersion"
            self.version = version
            self.key = self.value = None

    class _OnEntry:
        def __init__(self, key: Any, value: Any) -> None:
            self.type = type(self).__name__
            self.key = key
            self.value = value
            self.version = None

    class Insert(_OnEntry):
        """Sets `key`; refused with UNEXPECTED_VALUE if it has another value."""

    class Update(_OnEntry):
        """Replaces the value of `key`; refused with NONEXISTENT_VALUE if it has none."""

    class Upsert(_OnEntry):
        """Sets `key`, whatever it holds."""

    class Remove(_OnEntry):
        """Removes `key` if it holds exactly `value`; otherwise changes nothing."""


class VersionDiff:
    """The changes between two versions, read page by page as they are asked for."""

    def __init__(
        self,
        log: "Log",
        from_version: int,
        to_version: int,
        page: list[Change],
        next_page_options: dict[str, Any] | None,
    ) -> None:
        self.log = log
        self.from_version = from_version
        self.to_version = to_version
        self.page = page
        self.next_page_options = next_page_options

    def __str__(self) -> str:
        return str(self.to_version)

    def changes(self) -> Iterator[Change]:
        """Every change, in order. Unlike the original's, it can be read again."""
        page, options = self.page, self.next_page_options
        while True:
            yield from page
            if options is None:
                return
            answer = self.log.diff_page(
                self.from_version, self.to_version, pagination_options=options
            )
            page, options = answer["page"], answer["nextPageOptions"]


class Log:
    """A log of the v1 service, sealed by the original library's rules or not at all.

    `key_mode` and `value_mode`: `string`, `json`, `binary` (bytes), or `raw` (base64 text
    that stays as it is; only with `encrypt=False`). `name_mode`: `string`, `stringlist`
    (parts of a path), or `raw`. `allow_plain_http` is for `http://` beyond this machine.
    """

    def __init__(
        self,
        name: Any,
        profile: Profile,
        key_mode: str = "string",
        value_mode: str = "json",
        encrypt: bool = True,
        name_mode: str = "string",
        *,
        allow_plain_http: bool = False,
    ) -> None:
        validate_mode(key_mode)
        validate_mode(value_mode)
        self.orig_name = name
        self.profile = profile
        self.key_mode = key_mode
        self.value_mode = value_mode
        self.encrypt = encrypt
        self.authinfo = {"customer_id": profile["customer_id"], "apikey": profile["apikey"]}
        self.encoded_name = encode_name(name, name_mode)
        self._allow_plain_http = allow_plain_http
        key = None
        if encrypt:
            self.encrypted_name = encrypt_name(self.encoded_name, profile)
            self.remote_name = standard_b64encode(self.encrypted_name).decode()
            key = crypto.derive_key(profile["master_key"], self.encoded_name)
        elif name_mode == "raw":
            self.remote_name = name
        else:
            self.remote_name = self.encoded_name.decode()
        self.key_transformer = value_transformer(key_mode, key)
        self.value_transformer = value_transformer(value_mode, key)

    def create(self, log_group: str | None = None) -> None:
        """Makes sure that the log exists, in the group `log_group`, which is not sealed.

        Raises:
            ApiErrorException: LOG_EXISTS if it is in another group.
        """
        self._call("create", self._request(logGroup=log_group))

    def update(self, commands: Iterable[Any], update_source: str | None = None) -> None:
        """One transaction; `update_source`, who made it, is not sealed.

        Raises:
            ApiErrorException: with the code of the first command that failed; nothing
                was applied.
        """
        header = self._request(updateSource=update_source)
        self._call("update", header, *map(self._encoded, commands))

    def __iter__(self) -> Iterator[Change]:
        """What the log holds now, as changes from nothing."""
        return self.version_diff(0, None).changes()

    def version(self, version: int) -> Iterator[Change]:
        """What the log held at `version`, as changes from nothing."""
        return self.version_diff(0, version).changes()

    def version_diff(
        self,
        from_version: int | None = 0,
        to_version: int | None = None,
        wait_seconds: int | None = None,
    ) -> VersionDiff:
        """The changes from one version to another, or to the current one.

        If `from_version` is the current one and `to_version` None, waits for the next
        version, at most `wait_seconds` (0 to 60).
        """
        diff = self.diff_page(from_version, to_version, wait_seconds=wait_seconds)
        return VersionDiff(
            self, diff["fromVersion"], diff["toVersion"], diff["page"], diff["nextPageOptions"]
        )

    def diff_page(
        self,
        from_version: int | None,
        to_version: int | None = None,
        wait_seconds: int | None = None,
        order_results_by: str | None = None,
        limit: int | None = None,
        pagination_options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One page of changes: `fromVersion`, `toVersion`, `page`, `nextPageOptions`.

        `order_results_by` is `command` or `key`, `limit` 0 to 50. `pagination_options` are
        the `nextPageOptions` of the page before, or made up: `skipToKey` (decoded, as a
        key of this log), `removeAlreadySeen`, `skipToVersion`, `skipToCommand`.
        """
        if pagination_options is not None:
            pagination_options = _replaced_key(pagination_options, self.key_transformer.encode)
        request = self._request(
            fromVersion=from_version,
            toVersion=to_version,
            waitSeconds=wait_seconds,
            orderResultsBy=order_results_by,
            limit=limit,
            paginationOptions=pagination_options,
        )
        diff: dict[str, Any] = self._call("diff", request, wait_seconds=wait_seconds or 0)
        for change in diff["page"]:
            change["entry"] = {
                "key": self.key_transformer.decode(change["entry"]["key"]),
                "value": self.value_transformer.decode(change["entry"]["value"]),
            }
        if diff.get("nextPageOptions") is not None:
            diff["nextPageOptions"] = _replaced_key(
                diff["nextPageOptions"], self.key_transformer.decode
            )
        return diff

    def _encoded(self, command: Any) -> dict[str, Any]:
        key, value = command.key, command.value
        return {
            "type": command.type,
            "key": None if key is None else self.key_transformer.encode(key),
            "value": None if value is None else self.value_transformer.encode(value),
            "version": command.version,
        }

    def _request(self, **members: Any) -> dict[str, Any]:
        given = {name: value for name, value in members.items() if value is not None}
        return {"authinfo": self.authinfo, "logName": self.remote_name, **given}

    def _call(self, verb: str, *documents: dict[str, Any], wait_seconds: float = 0) -> Any:
        answer = post(
            f"{self.profile['endpoint_url'].rstrip('/')}/v1/log/{verb}",
            "".join(map(json.dumps, documents)).encode(),
            silence_seconds=SILENCE_SECONDS + wait_seconds,
            allow_plain_http=self._allow_plain_http,
        )
        handleError(answer)
        return answer.json() if answer.content else None


def _replaced_key(options: dict[str, Any], recode: Any) -> dict[str, Any]:
    key = options.get("skipToKey")
    return options if key is None else {**options, "skipToKey": recode(key)}
