"""Fixtures for every test. Each family of them lives in a module under `tests/support`."""

import signal

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.support.engines",
    "tests.support.powercut",
    "tests.support.service",
    "tests.support.hooking",
    "tests.support.deployment",
    "tests.support.cluster",
    "tests.support.buckets",
]

# How long examples take to make, and to run, is the machine's affair.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# A shell starts what it runs in the background deaf to interrupts, and so would be all that tests
# start; tests of interrupts must hold there too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
