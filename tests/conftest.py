"""Fixtures for every test. Each family of them lives in a module under `tests/support`."""

pytest_plugins = [
    "tests.support.engines",
    "tests.support.powercut",
    "tests.support.service",
    "tests.support.deployment",
]
