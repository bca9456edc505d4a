"""IoU and accuracy against loops in NumPy, and classes of images in windows against those of whole images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.evaluation.class_reports import write_class_report
from experiments.evaluation.classification import confusion
from experiments.evaluation.segmentation import PixelClasses, class_ious, notes_on_confusions, segmentation_metrics

CLASSES = 4  # of which the last one never occurs


@pytest.fixture
def masks():
    """Truths of several sizes with ignored pixels, and predictions."""
    rng = np.random.default_rng(0)
    sizes = [(7, 9), (5, 5), (12, 3)]
    return [(rng.integers(-1, 3, size), rng.integers(0, 3, size)) for size in sizes]


def test_figures_are_those_of_a_loop_over_all_pixels(masks, tmp_path):
    matrix = sum(confusion(*pair, CLASSES) for pair in masks)
    pixels = [pair for truth, found in masks for pair in zip(truth.ravel(), found.ravel()) if pair[0] >= 0]
    ious = []
    for c in range(3):
        both = sum(t == c and p == c for t, p in pixels)
        ious.append(both / sum(t == c or p == c for t, p in pixels))
    np.testing.assert_allclose(class_ious(matrix), [*ious, np.nan])
    assert segmentation_metrics(matrix) == {
        "mean_iou": pytest.approx(100 * np.mean(ious)),
        "pixel_accuracy": pytest.approx(100 * np.mean([t == p for t, p in pixels])),
    }
    write_class_report(tmp_path / "report.csv", matrix, list("abcd"), "pixels")
    rows = [line.split(",") for line in (tmp_path / "report.csv").read_text().splitlines()]
    assert rows[0][:5] == ["class", "pixels", "correct", "predicted", "iou"] and rows[4][4:] == [""] * 4
    assert [float(row[4]) for row in rows[1:4]] == pytest.approx([100 * iou for iou in ious], rel=1e-5)
    assert sum(int(row[1]) for row in rows[1:]) == len(pixels)


def test_ignored_pixels_change_no_figure(masks):
    def total(fill):
        changed = [(truth, np.where(truth < 0, fill, found)) for truth, found in masks]
        return sum(confusion(*pair, CLASSES) for pair in changed)

    np.testing.assert_array_equal(total(0), total(3))
    assert segmentation_metrics(np.zeros((3, 3), int)) == {"mean_iou": 0.0, "pixel_accuracy": 0.0}


def test_what_figures_leave_out_is_told():
    none, some = np.zeros((2, 2), int), np.eye(2, dtype=int)
    assert list(notes_on_confusions("test", 5, some, 0)) == []
    assert list(notes_on_confusions("test", 5, none, 5)) == [
        "test: 5 of 5 images or their masks cannot be read, and are left out",
        "test: there is no pixel that counts, so the figures are 0 and mean nothing",
    ]
    assert segmentation_metrics(some, 3)["unreadable"] == 3 and "unreadable" not in segmentation_metrics(some, 0)


class Local(keras.Model):
    """A model whose logits depend on the pixel and its neighbours two rows and columns away, and on nothing else."""

    def call(self, images, training=None):
        around = sum(tf.roll(images, (i, j), (1, 2)) for i in (-2, 2) for j in (-2, 2))
        return tf.concat([around, images[..., ::-1]], axis=-1)


@pytest.mark.parametrize("size", [(40, 64), (16, 70), (63, 17), (16, 16), (17, 16)])
def test_windows_give_the_classes_of_the_whole_image(size):
    images = np.random.default_rng(1).normal(size=(3, *size, 2)).astype("float32")
    expected = np.argmax(Local()(images), axis=-1)
    found = np.stack(list(PixelClasses(Local(), 16, 0.4, 500).of_batches([images])))
    edge = (slice(None), slice(2, -2), slice(2, -2))  # where the image ends, it goes on at the other side
    np.testing.assert_array_equal(found[edge], expected[edge])
    whole = np.stack(list(PixelClasses(Local(), 100).of_batches([images])))
    np.testing.assert_array_equal(whole, expected)


def test_images_of_many_sizes_come_in_their_order():
    rng = np.random.default_rng(0)
    images = [
        rng.normal(size=(*size, 2)).astype("float32") for size in [(9, 8), (9, 8), (9, 8), (30, 20), (8, 9), (9, 8)]
    ]
    classes = PixelClasses(Local(), 16, 0.4, 2 * 72)
    for image, found in zip(images, classes.of_batches([images[:4], images[4:]]), strict=True):
        assert found.shape == image.shape[:2]
        np.testing.assert_array_equal(found, next(classes.of_batches([[image]])))
