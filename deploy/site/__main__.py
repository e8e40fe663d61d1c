"""Builds the documents as a site: `make site`, or `python -m deploy.site [--folder .site]`.

The pages are the Markdown files of the tree; links between them are rewritten, links to other
files become plain text. Nothing on a page is loaded from elsewhere.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {  # where it stands: its page, its title in the navigation
    "README.md": ("index.md", "Start"),
    "client/GUIDE.md": ("guide.md", "Guide"),
    "client/COMMANDS.md": ("commands.md", "Command line"),
    "client/EVENTSOURCING.md": ("eventsourcing.md", "Event sourcing"),
    "client/PROTOCOL.md": ("protocol.md", "Protocol"),
    "services/DESIGN.md": ("design.md", "Design"),
    "services/SCALE.md": ("scale.md", "Scale"),
    "deploy/RUNBOOK.md": ("runbook.md", "Runbook"),
    "SECURITY.md": ("security.md", "Security"),
    "tests/EVIDENCE.md": ("evidence.md", "Evidence"),
    "CHANGELOG.md": ("changelog.md", "Changes"),
}
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>[^)#\s]+)(?P<part>#[^)\s]*)?\)")
_LOADING = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*>"""
)


class SiteError(Exception):
    """A site that cannot be built; its text is a sentence."""


def page(source: str) -> str:
    """The Markdown of a page, its links as they are on the site."""
    folder = (ROOT / source).parent

    def link(match: re.Match[str]) -> str:
        target, text = match["target"], match["text"]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (folder / target).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            raise SiteError(f"{source} links to {target}, which is not there")
        within = path.relative_to(ROOT).as_posix()
        if within in PAGES:
            return f"[{text}]({PAGES[within][0]}{match['part'] or ''})"
        return f"{text} (`{within}`)"

    return _LINK.sub(link, (ROOT / source).read_text())


def build(folder: Path) -> None:
    """
    Raises:
        SiteError: a link leads nowhere, or a page would load something from elsewhere.
    """
    with tempfile.TemporaryDirectory() as work:
        docs = Path(work) / "docs"
        docs.mkdir()
        for source, (name, _) in PAGES.items():
            (docs / name).write_text(page(source))
        (Path(work) / "zensical.toml").write_text(_configuration())
        done = subprocess.run(
            [sys.executable, "-m", "zensical", "build", "--strict"],
            cwd=work,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SiteError(f"the site was not built:\n{done.stdout}{done.stderr}")
        built = Path(work) / "site"
        for path in built.rglob("*.html"):
            if found := _LOADING.search(path.read_text()):
                raise SiteError(f"{path.relative_to(built)} loads from elsewhere: {found[0]}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(built, folder)


def _configuration() -> str:
    nav = ", ".join(
        f"{{{json.dumps(title)} = {json.dumps(name)}}}" for name, title in PAGES.values()
    )
    return (
        "[project]\n"
        'site_name = "Indelible"\n'
        'site_description = "End-to-end encrypted, versioned logs that wake their readers"\n'
        f"nav = [{nav}]\n"
        "[project.theme]\nfont = false\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.site", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path(".site"), help="where the site goes; replaced (.site)"
    )
    folder = parser.parse_args().folder
    try:
        build(folder)
    except SiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{folder / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
