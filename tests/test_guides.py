"""Every block of the README, the guide and the commands works, typed by somebody new."""

import shutil
from pathlib import Path

import pytest

from tests.support.documents import blocks_of, commands_in, reader
from tests.support.ports import free_port

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDE = ROOT / "client/GUIDE.md"
COMMANDS = ROOT / "client/COMMANDS.md"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


async def test_every_block_of_the_readme_works(tmp_path: Path) -> None:
    blocks = blocks_of(README)
    assert {"python", "console"} <= {block.kind for block in blocks}
    with reader(tmp_path, free_port()) as newcomer:
        for block in blocks:
            await newcomer.type(block)


@pytest.mark.parametrize("document", [GUIDE, COMMANDS], ids=lambda path: path.stem)
async def test_every_block_of_the_document_works(tmp_path: Path, document: Path) -> None:
    set_up = next(block for block in blocks_of(README) if block.kind == "console")
    blocks = blocks_of(document)
    shown = [text for b in blocks if b.kind == "console" for _, text in commands_in(b.text)]
    assert sum(bool(text) for text in shown) > 5  # it shows what its commands print
    with reader(tmp_path, free_port()) as newcomer:
        for block in [set_up, *blocks]:
            await newcomer.type(block)
