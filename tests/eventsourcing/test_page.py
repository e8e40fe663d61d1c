"""The page about event-sourced applications works, typed by somebody new."""

from pathlib import Path

import pytest
from indelible.eventsourcing import Factory

from tests.support.documents import blocks_of, reader
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "client/EVENTSOURCING.md"


@pytest.fixture(autouse=True)
def environment() -> None:
    """The page says where its service is."""


async def test_every_block_of_the_page_works(tmp_path: Path) -> None:
    set_up = next(block for block in blocks_of(ROOT / "README.md") if block.kind == "console")
    blocks = blocks_of(PAGE)
    assert {block.kind for block in blocks} == {"python", "console"}
    with reader(tmp_path, free_port()) as newcomer:
        for block in [set_up, *blocks]:
            await newcomer.type(block)


def test_the_page_names_every_variable() -> None:
    ours = {value for name, value in vars(Factory).items() if name.isupper()}
    text = PAGE.read_text()
    assert len(ours) > 6
    assert {variable for variable in ours if f"`{variable}`" not in text} == set()
