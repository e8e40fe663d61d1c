"""The protocol as cases over HTTP alone, against any service.

`python -m pytest tests/conformance --url http://… --credentials FILE [--second-url http://…]
[--stranger-credentials FILE] [--revoked-credentials FILE]` runs them against a service that is
there; with a second URL, of another process of the same service, requests go to the two in turn.
What is said of strangers and revoked keys is left out without theirs. Without --url, services are
started here.
"""
