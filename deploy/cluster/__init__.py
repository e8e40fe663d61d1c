"""A Valkey Cluster for the service: its configuration, and the way to form it."""
