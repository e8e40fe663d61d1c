"""Fixtures for every test. Each family of them lives in a module under `tests/support`."""

import signal

pytest_plugins = [
    "tests.support.engines",
    "tests.support.powercut",
    "tests.support.service",
    "tests.support.hooking",
    "tests.support.deployment",
    "tests.support.cluster",
    "tests.support.buckets",
]

# A shell starts what it runs in the background deaf to interrupts, and so would be all that tests
# start; tests of interrupts must hold there too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
