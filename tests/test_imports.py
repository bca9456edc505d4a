"""Imports point one way: convnext <- fcmae <- experiments <- launch."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("convnext", "fcmae", "experiments", "launch")
# The numerics run on every backend of Keras, so they may import none.
PORTABLE = {"convnext", "fcmae"}
PORTABLE_IMPORTS = {"keras", "numpy", *sys.stdlib_module_names}
# The one file that reads and writes files of weights, and the one that knows of TensorFlow's compiler.
EXCEPTIONS = {
    "convnext/weights/formats.py": {"h5py", "ml_dtypes", "safetensors", "torch"},
    "convnext/weights/folders.py": {"safetensors"},
    "convnext/tf_cpu/fusion.py": {"tensorflow"},
}


def imported_modules(path, root):
    """Yields `(line, module)` of every import statement of a file, at any depth; relative ones are resolved."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            # Without a module in front, what is imported are modules themselves.
            yield from [(node.lineno, module)] if module else ((node.lineno, alias.name) for alias in node.names)


def is_allowed(importer, module):
    """Whether the file `importer`, relative to the root, may import `module`."""
    package, top = importer.split("/")[0], module.split(".")[0]
    if top in PACKAGES:
        return PACKAGES.index(top) <= PACKAGES.index(package)
    if package in PORTABLE:
        return top in PORTABLE_IMPORTS | EXCEPTIONS.get(importer, set())
    return top != "tests"


def violations(root):
    """Returns a line for each import of the packages below `root` that is not allowed."""
    return [
        f"{path.relative_to(root)}:{line} imports {module}"
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
        for line, module in imported_modules(path, root)
        if not is_allowed(path.relative_to(root).as_posix(), module)
    ]


def test_no_import_points_back():
    assert (ROOT / "convnext" / "backbone.py").is_file() and (ROOT / "fcmae" / "model.py").is_file()
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "statement", "module"),
    [
        ("convnext/a.py", "import fcmae", "fcmae"),
        ("convnext/a.py", "from fcmae.model import FCMAE", "fcmae.model"),
        ("convnext/weights/a.py", "import torch", "torch"),
        ("convnext/weights/formats.py", "import tensorflow", "tensorflow"),
        ("convnext/a.py", "import keras, tensorflow as tf", "tensorflow"),
        ("fcmae/a.py", "from absl import flags", "absl"),
        ("fcmae/a.py", "def f():\n    if True:\n        from experiments import config", "experiments"),
        ("fcmae/a.py", "try:\n    import wandb\nexcept ImportError:\n    wandb = None", "wandb"),
        ("fcmae/a.py", "from ..launch.pretrain import main", "launch.pretrain"),
        ("fcmae/a.py", "from .. import experiments", "experiments"),
        ("fcmae/a.py", "from tests.references import block", "tests.references"),
        ("experiments/data/a.py", "import launch.pretrain", "launch.pretrain"),
        ("experiments/data/a.py", "from ...launch import demo", "launch"),
        ("launch/a.py", "import tests.references", "tests.references"),
    ],
)
def test_a_planted_import_is_found(tmp_path, file, statement, module):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(statement)
    (found,) = violations(tmp_path)
    assert found.startswith(f"{file}:") and found.endswith(f" imports {module}")


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("convnext/a.py", "import dataclasses\nimport numpy as np\nfrom keras import ops"),
        ("convnext/weights/a.py", "from ..layers import EPSILON\nfrom . import timm\nfrom convnext import blocks"),
        ("convnext/weights/formats.py", "def read():\n    import torch"),
        ("fcmae/a.py", "from convnext.blocks import ConvNextV2Block\nfrom .masking import patchify"),
        ("experiments/a.py", "import tensorflow as tf\nimport wandb\nimport fcmae, convnext"),
        ("launch/a.py", "from absl import app\nfrom experiments.pretrain import run"),
    ],
)
def test_an_import_that_points_forward_is_let_through(tmp_path, file, statement):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(statement)
    assert violations(tmp_path) == []
