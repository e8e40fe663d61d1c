"""URL paths of the native API: one template each, for the router and for the client."""

from indelible_protocol.ids import LogId, to_base64url

LOGS = "/v2/logs"
WAIT = "/v2/wait"
NAME = "/v2/names/{name}"
LOG = "/v2/logs/{log_id}"
COMMITS = LOG + "/commits"
DIFF = LOG + "/diff"
EVENTS = LOG + "/events"
ENTRY = LOG + "/entries/{key}"
HISTORY = ENTRY + "/history"
BATCH_GET = LOG + "/entries:batchGet"
VERSIONS = LOG + "/versions"
FORGET = LOG + "/forget"
WEBHOOKS = "/v2/webhooks"
WEBHOOK = WEBHOOKS + "/{webhook_id}"
WEBHOOK_ENABLE = WEBHOOK + "/enable"
WEBHOOK_ROTATE = WEBHOOK + "/rotate-secret"
WEBHOOK_TRIGGER = WEBHOOK + "/trigger"
WEBHOOK_DELIVERIES = WEBHOOK + "/deliveries"
WEBHOOK_REPLAY = WEBHOOK + "/replay"


def name(token: bytes) -> str:
    return NAME.format(name=to_base64url(token))


def of_log(template: str, log_id: LogId) -> str:
    return template.format(log_id=to_base64url(log_id))


def of_key(template: str, log_id: LogId, key: bytes) -> str:
    return template.format(log_id=to_base64url(log_id), key=to_base64url(key))


def of_webhook(template: str, webhook_id: str) -> str:
    return template.format(webhook_id=webhook_id)
