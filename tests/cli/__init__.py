"""Tests of the `indelible` command."""
