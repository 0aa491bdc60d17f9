"""Check that every internal link of the site leads somewhere: `python docs/book/check.py FOLDER`.

Prints the heaviest pages; a page weighs its own bytes and those of all pictures, styles and scripts
that it loads.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

MAX_PAGE_BYTES = 2_000_000
LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "iframe": "src"}
LOADED = ("img", "script", "link", "iframe")


@dataclass
class Page(HTMLParser):
    """What one page refers to, and what can be referred to in it."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[tuple[str, str]] = field(default_factory=list)
    """(tag, target) of every link."""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's anchors and its link."""
        known = dict(attrs)
        self.anchors |= {known[name] or "" for name in ("id", "name") if name in known}
        if target := known.get(LINKS.get(tag, "")):
            self.links.append((tag, target))

    def inside(self) -> Iterator[tuple[str, Path, str]]:
        """Yield (tag, file, fragment) of the links that stay in the site."""
        for tag, target in self.links:
            address, fragment = urldefrag(target)
            parts = urlsplit(address)
            if not parts.scheme and not parts.netloc:
                file = self.path.parent / unquote(parts.path) if parts.path else self.path
                yield tag, file.resolve(), unquote(fragment)


def check(site: Path) -> tuple[list[str], dict[str, int]]:
    """Return what is wrong with a built site, a sentence each, and the bytes of each page."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    found, weights = [], {}
    for path, page in pages.items():
        name = path.relative_to(site.resolve()).as_posix()
        loaded = {path}
        for tag, file, fragment in page.inside():
            if not file.exists():
                found.append(f"{name}: a link to {file.name}, which is not in the site")
            elif fragment and file in pages and fragment not in pages[file].anchors:
                found.append(f"{name}: a link to #{fragment}, which {file.name} does not have")
            elif tag in LOADED and file.is_file():
                loaded.add(file)
        weights[name] = sum(file.stat().st_size for file in loaded)
        if weights[name] > MAX_PAGE_BYTES:
            found.append(f"{name}: {weights[name]:,} bytes to load, allowed {MAX_PAGE_BYTES:,}")
    return found or ([] if pages else [f"no pages in {site}"]), weights


if __name__ == "__main__":
    faults, weights = check(Path(sys.argv[1]))
    for fault in faults:
        print(fault, file=sys.stderr)
    heaviest = sorted(weights.items(), key=lambda page: -page[1])[:3]
    print(f"{len(weights)} pages, {len(faults)} faults; the heaviest pages with all they load:")
    for name, size in heaviest:
        print(f"  {size / 1000:,.0f} kB  {name}")
    sys.exit(bool(faults))
