"""What the README and the pages of docs/ hold: Python, commands, links, headings."""

import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    page.stem: page for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
CODE = re.compile(r"^```(?P<language>\w*)\n(?P<block>.*?)^```|`(?P<inline>[^`]+)`", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"python -m launch\.(\w+)(.*)")


def text_of(page):
    """The text of a page."""
    return PAGES[page].read_text(encoding="utf-8")


def python_blocks(page):
    """The blocks of Python on a page."""
    return [code["block"] for code in CODE.finditer(text_of(page)) if code["language"] == "python"]


def commands(page):
    """The commands on a page, in blocks and in sentences, as `(name, flags)`; what is in brackets belongs to them."""
    found = []
    for code in CODE.finditer(text_of(page)):
        if not code["language"]:
            lines = (code["block"] or code["inline"]).replace("\\\n", " ").splitlines()
            found += [match for line in lines if (match := COMMAND.search(line))]
    return [(match[1], tuple(shlex.split(re.sub(r"\[(--[^]]*)]", r"\1", match[2])))) for match in found]


def prose(page):
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def links(page):
    """Where the links and pictures of a page lead, but for those into the network."""
    targets = re.findall(r"\]\(([^)\s]+)\)|^\[\w+\]: (\S+)", prose(page), re.MULTILINE)
    return [target for pair in targets for target in pair if target and not target.startswith("http")]


def anchors(path):
    """The names by which links reach the headings of a Markdown file."""
    titles = re.findall(r"^#+ (.+)$", prose(path.stem), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
