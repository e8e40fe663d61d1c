"""The documents build as a site, with every link leading somewhere."""

from pathlib import Path

import pytest

from deploy.site import __main__ as site


def test_the_site_builds_with_a_page_for_every_document(tmp_path: Path) -> None:
    site.build(tmp_path / "site")
    built = {path.parent.name for path in (tmp_path / "site").rglob("index.html")}
    assert built >= {Path(name).stem for name, _ in site.PAGES.values()} - {"index"}
    start = (tmp_path / "site/index.html").read_text()
    assert 'href="./guide/"' in start
    assert 'href="./protocol/"' in start


def test_every_document_of_the_tree_is_a_page() -> None:
    documents = {
        path.relative_to(site.ROOT).as_posix()
        for folder in (".", "client", "services", "deploy", "tests")
        for path in (site.ROOT / folder).glob("*.md")
    }
    assert documents == set(site.PAGES)


def test_a_link_that_leads_nowhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("see [this](absent.md)")
    monkeypatch.setattr(site, "ROOT", tmp_path)
    with pytest.raises(site.SiteError, match=r"README.md links to absent.md"):
        site.page("README.md")
