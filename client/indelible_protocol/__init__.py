"""What client and server must agree on. Pure: no I/O, no clock, no randomness."""
