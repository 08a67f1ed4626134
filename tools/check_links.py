"""Check that relative links in the repository's Markdown files lead to files and headings that exist.

    python tools/check_links.py

`mkdocs build --strict` checks the site; this checks what people read in the repository.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
CODE = re.compile(r"^(```|~~~).*?^\1|^ {4}.*?$|`[^`\n]*`", re.M | re.S)


def anchors(path: Path) -> set[str]:
    """Return the anchors that a Markdown file's headings get, as GitHub and mkdocs make them."""
    found = set()
    for heading in re.findall(r"^#+ (.*?)\s*$", path.read_text(encoding="utf-8"), re.M):
        text, _, own = heading.partition(" { #")
        found.add(own.rstrip(" }") if own else re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-"))
    return found


def dead_links(path: Path) -> list[str]:
    """Return the links of a Markdown file that lead nowhere, as `file: link`."""
    dead = []
    for link in LINK.findall(CODE.sub("", path.read_text(encoding="utf-8"))):
        target, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        file = (path.parent / target).resolve() if target else path
        generated = file.is_file() and "<!-- facekit:" in file.read_text(encoding="utf-8", errors="replace")
        if not file.exists() or (anchor and file.suffix == ".md" and not generated and anchor not in anchors(file)):
            dead.append(f"{path}: {link}")
    return dead


def main() -> None:
    """Print dead links; exit with 1 if there are any."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    dead = [line for name in listed if (ROOT / name).is_file() for line in dead_links(ROOT / name)]
    print("\n".join(dead) or f"{len(listed)} Markdown files: all links lead somewhere")
    sys.exit(bool(dead))


if __name__ == "__main__":
    main()
