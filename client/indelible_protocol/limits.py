"""Every bound that both sides know. Sizes are in bytes unless the name says otherwise."""

MAX_VERSION = 2**53 - 1  # JSON numbers and Lua doubles are exact up to here
MAX_TIME_MS = 253_402_300_799_999  # the end of the year 9999, as far as calendars go
NO_VERSION = 2**64 - 1  # "no expected version" in a commit header

MAX_COMMANDS = 4_096
MAX_COMMIT_BYTES = 1 << 20
MAX_CONTROL_RECORDS = 16
MAX_MEMO_BYTES = 4_096
MAX_ALTS = 8
MAX_LAG = 1 << 21

MAX_KEY_BYTES = 1_024
MAX_NAME_BYTES = 1_024
MAX_GROUP_BYTES = 256
MAX_SEALED_KEY_BYTES = 2_048
MAX_CARD_BYTES = 1_024
MAX_WRAP_BYTES = 1_024
MAX_WRAPS = 4_096
MAX_SERVER_KEYS = 16
MAX_IDEMPOTENCY_KEY_CHARS = 64

MAX_WAIT_SECONDS = 60.0
MAX_V1_BODY_BYTES = 2 << 20
MAX_BODY_BYTES = MAX_V1_BODY_BYTES + (64 << 10)  # a full commit as base64 in JSON
MAX_NESTING = 16

DEFAULT_PAGE = 1_000
MAX_PAGE = 10_000
MAX_PAGE_BYTES = 4 << 20
MAX_BATCH_KEYS = 4_096
MAX_WAIT_LOGS = 10_000
MAX_WAIT_GROUPS = 100

# How long a commit stands in the line of those who compete for its log.
MAX_TICKET_WAIT_SECONDS = 2.0
# Entries in the answer to a commit that met a conflict, if it asked for them.
MAX_CONFLICT_ENTRIES = 64

MAX_WEBHOOK_URL_CHARS = 2_048
MAX_WEBHOOK_TOKENS = 256
MAX_WEBHOOK_DESCRIPTION_CHARS = 256
MAX_WEBHOOK_DIFF_BYTES = 20_000  # a larger one is not sent along
MAX_WEBHOOK_DELIVERIES = 1_000  # that are over and still listed
MAX_DEAD_LETTERS = 100
MAX_WEBHOOK_TESTS = 10  # that wait to be sent
WEBHOOK_KEY_OVERLAP_SECONDS = 86_400  # that the key before a rotation still signs
