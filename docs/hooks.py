"""Hooks of mkdocs: README.md and CONTRIBUTING.md become pages; links to what is no page become plain text."""

import os
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<!!)\[([^]]+)\]\(([^)\s:]+)\)|(?<=\]\()([^)\s:]+)(?=\))")


def on_files(files, config):
    """Adds the pages that lie outside of docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))


def on_page_markdown(markdown, page, config, files):
    """Makes the links of a page, which lead through the repository, lead through the site."""
    names = {uri: name for name, uri in PAGES.items()}
    here = os.path.dirname(names.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def rewritten(match):
        text, target = match[1], match[2] or match[3]
        name, mark, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(here, name))
        if not name or not (ROOT / path).exists():
            return match[0]  # for mkdocs to check
        uri = PAGES.get(path, path.removeprefix("docs/"))
        if not files.get_file_from_path(uri):
            return text or target
        link = os.path.relpath(uri, os.path.dirname(page.file.src_uri) or ".") + mark + anchor
        return f"[{text}]({link})" if text else link

    return LINK.sub(rewritten, markdown)
