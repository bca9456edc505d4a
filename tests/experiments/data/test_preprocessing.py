"""A file's way to the input of the model, beside Pillow and NumPy."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments.config import DataConfig, FinetuneConfig, PretrainConfig
from experiments.data.augmentation import views
from experiments.data.augmentation.color_jitter import color_jitter
from experiments.data.augmentation.erasing import random_erasing
from experiments.data.augmentation.randaugment import randaugment
from experiments.data.preprocessing import COLORS, ERASING, FLIP, WINDOW, Preprocessing
from tests.experiments.images import encode, gradient

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
GREY_WEIGHTS = [0.2989, 0.587, 0.114]
FILE = encode(gradient(90, 120))
SEEDS = [tf.constant((5, i), tf.int64) for i in range(40)]


def preprocessing(channels=3, **arguments):
    return Preprocessing(48, channels, MEAN[:channels], STD[:channels], **arguments)


def reference(content, window, channels=3, size=(48, 48)):
    """Crop and resize by Pillow, grey and normalization by NumPy."""
    top, left, height, width = (int(value) for value in window)
    image = Image.open(io.BytesIO(content)).convert("RGB").crop((left, top, left + width, top + height))
    pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC), "float64")
    if channels == 1:
        pixels = (pixels @ GREY_WEIGHTS)[..., None]
    return (pixels / 255 - MEAN[:channels]) / STD[:channels]


def window_of(seed, scale, aspect=1.0):
    """The window of a seed in an image of 90 x 120 pixels."""
    seeds = tf.cast(tf.random.fold_in(seed, WINDOW), tf.int64)[tf.newaxis]
    return views.random_window(tf.constant([(90, 120)]), scale, seeds, aspect)[0]


def distance(actual, expected):
    """Largest difference in units of pixel values; rounding to whole values and JPEG leave a few."""
    return np.abs(np.asarray(actual) - expected).max() * 255 * min(STD)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize(("crop", "window"), [(1.0, (0, 15, 90, 90)), (0.5, (22, 37, 45, 45))])
def test_evaluation_takes_the_centre(channels, kind, crop, window):
    content = encode(gradient(90, 120), kind)
    image = preprocessing(channels, evaluation_crop=crop).for_evaluation(tf.constant(content))
    assert image.dtype == "float32" and image.shape == (48, 48, channels)
    assert distance(image, reference(content, window, channels)) < (5 if kind == "jpeg" else 2)


@pytest.mark.parametrize(
    ("size", "arguments", "window"),
    [
        ((32, 48), {}, (5, 0, 80, 120)),
        ((48, 32), {"evaluation_crop": 0.5}, (22, 45, 45, 30)),
        ((32, 48), {"whole_view": True}, (0, 0, 90, 120)),
    ],
)
def test_images_that_are_not_square_keep_their_aspect_ratio_unless_squeezed(size, arguments, window):
    prepare = Preprocessing(size, 3, MEAN, STD, **arguments)
    image = prepare.for_evaluation(tf.constant(FILE))
    assert image.shape == (*size, 3) and distance(image, reference(FILE, window, size=size)) < 2
    padded = dataclasses.replace(prepare, crop="padded").for_training(tf.constant(FILE), SEEDS[0])
    resized = dataclasses.replace(prepare, crop_scale=(0.2, 0.7)).for_training(tf.constant(FILE), SEEDS[0])
    drawn = window_of(SEEDS[0], (0.2, 0.7), size[1] / size[0])
    assert padded.shape == (*size, 3) and distance(resized, reference(FILE, drawn, size=size)) < 2


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_evaluation_can_squeeze_the_whole_image(kind):
    image = preprocessing(evaluation_crop=0.5, whole_view=True).for_evaluation(
        tf.constant(encode(gradient(90, 120), kind))
    )
    assert distance(image, reference(FILE, (0, 0, 90, 120))) < 5


@pytest.mark.parametrize("channels", [1, 3])
def test_training_takes_the_window_of_the_seed(channels):
    prepare = preprocessing(channels, crop_scale=(0.2, 0.7))
    for seed in SEEDS[:10]:
        window = window_of(seed, (0.2, 0.7))
        assert distance(prepare.for_training(tf.constant(FILE), seed), reference(FILE, window, channels)) < 2


def test_the_whole_window_without_flip_is_the_resized_image():
    for seed in SEEDS[:3]:
        image = preprocessing().for_training(tf.constant(FILE), seed)
        assert distance(image, reference(FILE, (0, 0, 90, 120))) < 2


@pytest.mark.parametrize(("flip", "smallest", "largest"), [(False, 0, 0), (True, 10, 30)])
def test_an_image_is_mirrored_only_where_that_is_asked_for(flip, smallest, largest):
    prepare = preprocessing(flip=flip)
    straight = reference(FILE, (0, 0, 90, 120))
    mirrored = 0
    for seed in SEEDS:
        image = prepare.for_training(tf.constant(FILE), seed).numpy()
        mirrored += distance(image[:, ::-1], straight) < 2
        assert min(distance(image, straight), distance(image[:, ::-1], straight)) < 2
    assert smallest <= mirrored <= largest


def test_window_and_flip_are_drawn_apart():
    """The mirrored images have large and small windows as the others do."""
    prepare = preprocessing(crop_scale=(0.2, 1.0), flip=True)
    areas = {True: [], False: []}
    for seed in SEEDS:
        image = prepare.for_training(tf.constant(FILE), seed).numpy()
        window = window_of(seed, (0.2, 1.0))
        # Green grows to the right.
        areas[bool(image[:, 0, 1].mean() > image[:, -1, 1].mean())].append(int(window[2] * window[3]))
    assert min(len(group) for group in areas.values()) >= 10
    middle = np.median(areas[True] + areas[False])
    for group in areas.values():
        assert 0.15 < np.mean(np.array(group) > middle) < 0.85


def test_a_padded_crop_moves_the_view_of_evaluation():
    view = preprocessing(evaluation_crop=0.9).for_evaluation(tf.constant(FILE)).numpy() * STD + MEAN
    prepare, places = preprocessing(evaluation_crop=0.9, crop="padded", crop_scale=(0.1, 0.1)), set()
    padded = np.pad(view, [(6, 6), (6, 6), (0, 0)])
    for seed in SEEDS[:10]:
        image = prepare.for_training(tf.constant(FILE), seed).numpy() * STD + MEAN
        errors = {(i, j): np.abs(padded[i : i + 48, j : j + 48] - image).max() for i in range(13) for j in range(13)}
        place = min(errors, key=errors.get)
        assert errors[place] < 1e-3
        places.add(place)
    assert len(places) > 5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("jitter", [False, True])
def test_training_crops_flips_changes_normalizes_and_erases_in_this_order(channels, jitter):
    """Each step is tested by itself; here they are put together again, each with its stream of randomness."""
    changes = (
        {"color_jitter": (0.4, 0.3, 0.2, 0.1)} if jitter else {"randaugment_magnitude": 9.0, "randaugment_noise": 0.5}
    )
    prepare = preprocessing(channels, crop_scale=(0.2, 0.7), flip=True, erasing_probability=0.5, **changes)
    plain, mean, std = preprocessing(channels, crop_scale=(0.2, 0.7)), MEAN[:channels], STD[:channels]
    whole, results = 0, []
    for seed in SEEDS[:12]:
        folded = {stream: tf.random.fold_in(seed, stream) for stream in (FLIP, COLORS, ERASING)}
        seeds = {stream: tf.cast(own, tf.int64)[tf.newaxis] for stream, own in folded.items()}
        pixels = plain.random_view(tf.constant(FILE), seed)[tf.newaxis]
        pixels = tf.cast(tf.round(views.random_flip(pixels, seeds[FLIP])), tf.uint8)
        if jitter:
            pixels = color_jitter(pixels, (0.4, 0.3, 0.2, 0.1), seeds[COLORS])
        else:
            pixels = randaugment(pixels, 9.0, 0.5, mean, seeds[COLORS])
        expected = (pixels.numpy() / 255.0 - mean) / std
        expected = random_erasing(tf.constant(expected, tf.float32), 0.5, seeds[ERASING]).numpy()[0]
        actual = prepare.for_training(tf.constant(FILE), seed).numpy()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
        results.append(actual)
        whole += np.abs(actual).max() < 3.0
    assert 0 < whole < 12  # some are erased


def test_a_preparation_takes_its_values_from_the_configuration():
    data = DataConfig(
        image_size=64, channels=1, mean=(0.25,), std=(0.5,), flip=True, evaluation_crop=0.75, source="digits"
    )
    training = PretrainConfig(crop_scale=(0.3, 0.8))
    expected = Preprocessing(64, 1, (0.25,), (0.5,), 0.75, (0.3, 0.8), True, crop="padded")
    assert Preprocessing.of(data, training) == expected
    # Above 64 pixels windows are resized, and below where that is asked for.
    larger = dataclasses.replace(data, image_size=96)
    assert Preprocessing.of(larger, training) == dataclasses.replace(expected, image_size=96, crop="resized")
    resized = PretrainConfig(crop="resized", crop_scale=(0.3, 0.8))
    assert Preprocessing.of(data, resized).crop == "resized"
    assert Preprocessing.of(data).crop_scale == (1.0, 1.0)
    finetune = FinetuneConfig(
        crop_scale=(0.3, 0.8),
        crop="padded",
        randaugment_magnitude=5.0,
        randaugment_noise=0.25,
        erasing_probability=0.125,
    )
    expected = Preprocessing(
        64, 1, (0.25,), (0.5,), 0.75, (0.3, 0.8), True, False, "padded", 5.0, 0.25, (0.0, 0.0, 0.0, 0.0), 0.125
    )
    assert Preprocessing.of(data, finetune) == expected
    assert Preprocessing.of(data, FinetuneConfig(color_jitter=(1, 2, 3, 0.5))).color_jitter == (1.0, 2.0, 3.0, 0.5)


@pytest.mark.parametrize(
    ("view", "image_size", "whole"),
    [
        ("auto", 352, False),
        ("auto", 384, True),
        ("auto", (384, 352), False),
        ("auto", (384, 416), True),
        ("centre", 384, False),
        ("whole", 32, True),
    ],
)
def test_evaluation_sees_the_whole_image_from_384_pixels_up_or_as_it_is_told(view, image_size, whole):
    assert Preprocessing.of(DataConfig(image_size=image_size, evaluation_view=view)).whole_view == whole
