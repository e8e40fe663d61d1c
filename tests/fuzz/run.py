"""Fuzzes one target under coverage: `python -m tests.fuzz.run TARGET RUNS CORPUS_FOLDER`.

Target `all` lets the first byte choose, `planted` fails on purpose. New inputs are kept in the
folder; one that fails is written to the working folder as `crash-…`.
"""

import sys
from pathlib import Path

import atheris

MAX_BYTES = 4_096
UNIT_SECONDS = 20
MEMORY_MIB = 1_024

with atheris.instrument_imports(
    include=["indelible", "indelible_protocol", "indelible_server.api", "tests.fuzz.targets"]
):
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS


def any_target(data: bytes) -> None:
    if data:
        list(TARGETS.values())[data[0] % len(TARGETS)](data[1:])


def planted(data: bytes) -> None:
    if data[:1] == b"!" and data[1:2] == b"?":
        raise RuntimeError("found")


def main() -> None:
    name, runs, corpus = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, known in enumerate(TARGETS):
        prefix = bytes([number]) if name == "all" else b""
        if name in ("all", known):
            for index, seed in enumerate(seeds(known)):
                (corpus / f"seed-{known}-{index}").write_bytes(prefix + seed)
    target = {**TARGETS, "all": any_target, "planted": planted}[name]
    options = (
        f"-runs={runs}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={UNIT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        "-print_final_stats=1",
        "-seed=1",
    )
    atheris.Setup([sys.argv[0], *options, str(corpus)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
