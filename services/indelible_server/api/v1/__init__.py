"""The original protocol: a thin adapter to the same store as the native API."""
