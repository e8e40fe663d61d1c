"""A guided tour of a real service: `make demo`. Sets up, shows, cleans up, ends by itself."""
