"""The service: appends, versions, diffs and wakes; holds no keys."""
