"""README and docs/ say what holds: their Python runs, their commands can be parsed, what they name is there."""

import ast
import functools
import importlib.util
import pkgutil
import re
import runpy
import sys
import xml.etree.ElementTree

import pytest
from absl import app
from absl import flags as absl_flags

from convnext import ConvNeXtV2
from experiments.config import Config
from launch import command
from tests.documentation import CODE, PAGES, ROOT, anchors, commands, links, prose, python_blocks, text_of
from tests.launch.commands import run_forked
from tests.torchvision_import import import_without_extension

COMMANDS = sorted({one for page in PAGES for one in commands(page)})
RUNNABLE = [path.stem for path in (ROOT / "launch").glob("*.py") if "\nif __name__" in path.read_text(encoding="utf-8")]
CONVERSIONS = [flags for name, flags in commands("weights") if name == "convert" and ".pt" not in " ".join(flags)]
# Blocks of these pages go on from those before them; the blocks of export.md run in tests/launch/test_commands.py.
CONTINUED, ELSEWHERE = ("extending",), ("export",)
PYTHON = [
    (page, block)
    for page in PAGES
    if page not in ELSEWHERE and python_blocks(page)
    for block in (["".join(python_blocks(page))] if page in CONTINUED else python_blocks(page))
]
# Flags of other programs that sentences name.
FOREIGN = {"editable", "gpus-per-task", "check", "help"}
NAMED = re.compile(r"(?<![\w/.-])(?:convnext|fcmae|experiments|launch|tests|docs)/[\w/]+(?:\.\w+)?")


def parse(name, arguments):
    """Reads flags as `python -m launch.NAME` does, and returns the names of all that it has.

    Raises:
        UserError: if they are not what the command takes, or give no valid configuration.
    """
    app.define_help_flags()
    values = absl_flags.FLAGS
    before, names = set(values), set()

    def read(main, values=values, takes_arguments=False):
        names.update(set(values) - before)
        values.set_gnu_getopt(takes_arguments)
        _, *others = command._parse_flags(sys.argv, values)
        assert takes_arguments or not others
        if "config" in values and values.config is not None:
            Config.from_dict(values.config.to_dict())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"launch/{name}.py", *arguments])
        patch.setattr(command, "run_command", read)
        patch.chdir(ROOT)
        try:
            runpy.run_module(f"launch.{name}", run_name="__main__")
        finally:
            values.remove_flag_values(set(values) - before)
            values.set_gnu_getopt(False)
            values.unparse_flags()
    return names


@functools.cache
def flags_of_all_commands():
    return set().union(*(parse(name, ()) for name in RUNNABLE))


def missing_modules(code):
    """Returns the modules that a block imports and that are not installed."""
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [alias.name if isinstance(node, ast.Import) else node.module for node in imports for alias in node.names]
    return [name for name in names if importlib.util.find_spec(name.split(".")[0]) is None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the encoder of a finished run in it, for which the conversions of weights.md have been done."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "runs" / "own").mkdir(parents=True)
    encoder = ConvNeXtV2.from_variant("atto", input_shape=(96, 96, 3), include_top=False)
    encoder.save(folder / "runs" / "own" / "encoder.keras")
    assert len(CONVERSIONS) == 5
    for flags, outcome in run_forked({flags: ("convert", flags) for flags in CONVERSIONS}, folder).items():
        assert outcome.code == 0, (flags, outcome.errors)
    return folder


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[f"{page}-{n}" for n, (page, _) in enumerate(PYTHON)])
def test_python_runs(page, block, folder, monkeypatch):
    if missing := missing_modules(block):
        pytest.skip(f"{', '.join(missing)} is not installed")
    if re.search(r"^(import|from) (timm|transformers)\b", block, re.MULTILINE):
        import_without_extension()
    monkeypatch.chdir(folder)
    exec(compile(block, PAGES[page], "exec"), {"__name__": page})


@pytest.mark.parametrize(("name", "arguments"), COMMANDS, ids=[" ".join((name, *flags)) for name, flags in COMMANDS])
def test_commands_exist_and_take_their_flags(name, arguments):
    parse(name, arguments)


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_flags_in_sentences_exist(page):
    assert set(re.findall(r"\blaunch\.([a-z_]+)", prose(page))) <= set(RUNNABLE)
    inline = [code["inline"] for code in CODE.finditer(text_of(page)) if code["inline"]]
    named = {name for code in inline for name in re.findall(r"(?<!\S)--([a-z][\w-]*)(?![.\w-])", code)}
    assert named - FOREIGN - flags_of_all_commands() == set()
    fields = set(re.findall(r"--config\.([a-z_0-9.]*[a-z_0-9])", text_of(page)))
    assert fields - set(command._field_names(Config().to_dict())) == set()


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    for target in links(page):
        name, _, anchor = target.partition("#")
        path = (PAGES[page].parent / name).resolve() if name else PAGES[page]
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("name", [*PAGES, "packages.svg", "step.svg"])
def test_files_that_are_named_exist(name):
    text = text_of(name) if name in PAGES else (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert [path for path in NAMED.findall(text) if not (ROOT / path).exists()] == []


def test_pages_of_the_api_name_what_exists():
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md")]
    names = re.findall(r"^::: (\S+)$", "\n".join(pages), re.MULTILINE)
    assert len(names) > 20
    for name in names:
        assert pkgutil.resolve_name(name).__doc__, name


def test_the_readme_leads_to_every_page():
    assert {str(path.relative_to(ROOT)) for page, path in PAGES.items() if page != "README"} <= set(links("README"))


def test_tables_of_presets_and_of_the_flags_of_export_are_whole():
    table = text_of("recipe").partition("| `--config=` |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)", table, re.MULTILINE)) == set(command.PRESETS)
    assert parse("export", ()) - {"output"} <= set(re.findall(r"`--(\w+)`", text_of("export")))


def test_packages_of_the_diagram_hold_what_it_lists():
    rows = [
        (float(element.get("x")), element.text, element.get("class"))
        for element in xml.etree.ElementTree.parse(ROOT / "docs" / "packages.svg").iter(
            "{http://www.w3.org/2000/svg}text"
        )
    ]
    names = {x: text for x, text, kind in rows if kind == "name"}
    assert set(names.values()) == {"convnext", "fcmae", "experiments", "launch"}
    code = [(names[x], text) for x, text, kind in rows if kind == "code"]
    listed = [(package, word) for package, text in code for word in re.findall(r"[a-z]\w+(?:\.py|/)", text)]
    assert len(listed) > 20
    assert [f"{package}/{word}" for package, word in listed if not (ROOT / package / word).exists()] == []
