"""Pictures of masks: their titles, and images that cannot be drawn."""

import numpy as np
import tensorflow as tf

from experiments.training import pictures


def test_columns_have_titles_and_sides_of_one_pixel_are_drawn(tmp_path, monkeypatch):
    figures, save = [], pictures._save
    monkeypatch.setattr(pictures, "_save", lambda figure, path: figures.append(figure) or save(figure, path))
    images = [np.zeros((1, 1, 3)), np.zeros((1, 4, 3)), np.zeros((2, 3, 1))]
    masks = [np.zeros(image.shape[:2], int) for image in images]
    pictures.draw_masks(tmp_path / "masks.png", images, masks, masks, ["a", "b"], "step 1")
    (figure,) = figures
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["image", "mask (black: ignored)", "prediction"] + 6 * [""]
    shapes = [axis.images[0].get_array().shape[:2] for axis in figure.axes[::3]]
    assert shapes == [image.shape[:2] for image in images] and (tmp_path / "masks.png").stat().st_size > 1000


def test_images_that_became_unreadable_are_not_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "draw_masks", lambda *arguments: drawn.append(arguments))
    none = tf.data.Dataset.from_tensor_slices((np.zeros(0), np.zeros((0, 4, 4, 3)), np.zeros((0, 4, 4))))
    pictures.MaskPictures(None, None, none, ["a"], [1]).on_train_batch_end(1)
    assert not drawn
