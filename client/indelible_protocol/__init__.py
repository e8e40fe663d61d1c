"""What client and server must agree on: bytes, commands, versions, diffs, errors, messages.

Pure: no I/O, no clock, no randomness. Both sides import it; neither imports the other.
The normative text is `client/PROTOCOL.md`.
"""
