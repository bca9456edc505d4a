"""Texts in pictures: formulas that are none, and scripts that the usual font lacks."""

import json
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager

from experiments.data.augmentation.mixing import Mixing
from experiments.data.augmentation_picture import VERSIONS, draw_augmentation
from experiments.data.preprocessing import Preprocessing
from experiments.evaluation.class_reports import draw_confusion
from experiments.inference.search import Found, draw_search
from experiments.picture_text import plain_text
from experiments.training.pictures import draw_curves, draw_masks

NAMES = ("日本語 🚗", "$\\nothing$", "plain")


def confusions(path, count):
    draw_confusion(path, np.ones((count, count), int), (NAMES * count)[:count], f"images of {NAMES[0]}")


def masks(path):
    draw_masks(path, [np.zeros((4, 4, 3))], [np.zeros((4, 4), int)], [np.ones((4, 4), int)], NAMES, "step 1")


def augmentation(path):
    images = np.zeros((2, 4, 4, 3), np.float32)
    examples = images, np.stack([images] * VERSIONS, axis=1), np.array([0, 1])
    draw_augmentation(path, examples, Preprocessing((4, 4), 3, (0.5,) * 3, (0.2,) * 3), Mixing(3), NAMES, seed=5)


def search(path):
    found = Found(NAMES[0], None, np.array([0, 1]), np.array([0.9, 0.8]))
    draw_search(path, [found], [np.zeros((4, 4, 3), np.uint8)], dict.fromkeys((0, 1)), NAMES.__getitem__)


def curves(path):
    workdir = path.parent / NAMES[0] / NAMES[1]
    workdir.mkdir(parents=True)
    (workdir / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0}) + "\n", encoding="utf-8")
    draw_curves(workdir)
    (workdir / "curves.png").rename(path)


@pytest.mark.parametrize(
    "draw",
    [lambda path: confusions(path, 3), lambda path: confusions(path, 30), masks, augmentation, search, curves],
)
def test_any_name_is_drawn_without_a_warning(draw, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 500


def test_characters_come_from_an_installed_font_that_has_them():
    usual, other = (
        set(font_manager.get_font(font_manager.findfont(family)).get_charmap())
        for family in ("DejaVu Sans", "STIXGeneral")
    )
    name = "".join(map(chr, sorted(other - usual)[:3]))
    with plain_text(("a", name, "b" + chr(0x10FFFE))) as shown:  # no character
        families = matplotlib.rcParams["font.family"]
        assert shown == ("a", name, "b" + chr(0x10FFFE)) and not matplotlib.rcParams["text.parse_math"]
    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in families[1:]]
    assert fonts and set(map(ord, name)) <= set().union(*(font.get_charmap() for font in fonts))
    assert matplotlib.rcParams["font.family"] != families


def test_a_name_that_no_font_can_show_is_replaced_by_its_place(monkeypatch):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    with plain_text(("road", "\u65e5\u672c", "sky")) as shown:
        assert shown == ("road", "class 2", "sky")
