"""RandAugment: each operation of timm's table beside Pillow, and how they are drawn."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from experiments.data.augmentation import randaugment
from tests.experiments.data.augmentation.paths import PATHS, over_seeds
from tests.experiments.images import from_pillow, to_pillow, varied

MEAN = (0.485, 0.456, 0.406)
FILL = (124, 116, 104)
MAGNITUDES = [0.0, 2.5, 4.99, 9.0, 9.7]  # timm's table and Pillow agree up to here: see the test of the magnitude 10
SEEDS = [(3, i) for i in range(3000)]


def affine(*matrix):
    def transform(image):
        fill = FILL if image.mode == "RGB" else FILL[0]
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill)

    return transform


def rotated(degrees):
    def rotate(image):
        return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=FILL if image.mode == "RGB" else FILL[0])

    return rotate


def enhanced(kind, magnitude, sign):
    factor = max(0.1, 1.0 + sign * (magnitude / 10.0) * 0.9)
    return lambda image: kind(image).enhance(factor)


def solarize_add(addition):
    table = [min(255, value + addition) if value < 128 else value for value in range(256)]
    return lambda image: image.point(table * len(image.getbands()))


# From magnitude, sign and size (width, height) to Pillow's function, by timm's name; in its order.
REFERENCES = {
    "AutoContrast": lambda m, sign, size: ImageOps.autocontrast,
    "Equalize": lambda m, sign, size: ImageOps.equalize,
    "Invert": lambda m, sign, size: ImageOps.invert,
    "Rotate": lambda m, sign, size: rotated(sign * m / 10.0 * 30.0),
    "PosterizeIncreasing": lambda m, sign, size: lambda image: ImageOps.posterize(image, 4 - int(m / 10.0 * 4)),
    "SolarizeIncreasing": lambda m, sign, size: lambda image: ImageOps.solarize(image, 256 - int(m / 10.0 * 256)),
    "SolarizeAdd": lambda m, sign, size: solarize_add(int(m / 10.0 * 110)),
    "ColorIncreasing": lambda m, sign, size: enhanced(ImageEnhance.Color, m, sign),
    "ContrastIncreasing": lambda m, sign, size: enhanced(ImageEnhance.Contrast, m, sign),
    "BrightnessIncreasing": lambda m, sign, size: enhanced(ImageEnhance.Brightness, m, sign),
    "SharpnessIncreasing": lambda m, sign, size: enhanced(ImageEnhance.Sharpness, m, sign),
    "ShearX": lambda m, sign, size: affine(1, sign * m / 10.0 * 0.3, 0, 0, 1, 0),
    "ShearY": lambda m, sign, size: affine(1, 0, 0, sign * m / 10.0 * 0.3, 1, 0),
    "TranslateXRel": lambda m, sign, size: affine(1, 0, sign * m / 10.0 * 0.45 * size[0], 0, 1, 0),
    "TranslateYRel": lambda m, sign, size: affine(1, 0, 0, 0, 1, sign * m / 10.0 * 0.45 * size[1]),
}
INTERPOLATED = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")


def operate(name, pixels, magnitudes, signs):
    """What an operation makes of an image, with each of several magnitudes and signs at once."""
    strength, sign = (tf.constant(values, tf.float64) for values in (np.array(magnitudes) / 10.0, signs))
    operation = randaugment.operations(tf.constant(FILL[: pixels.shape[-1]], tf.uint8))[name]
    return operation(tf.repeat(tf.constant(pixels)[tf.newaxis], len(magnitudes), axis=0), strength, sign).numpy()


def test_the_operations_are_those_of_timm():
    assert list(randaugment.operations(tf.constant(FILL, tf.uint8))) == list(REFERENCES)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", REFERENCES)
def test_an_operation_equals_pillow_at_every_magnitude(name, channels):
    images = {kind: pixels for kind, pixels in varied(channels).items() if kind in ("noise", "smooth")}
    for kind, pixels in images.items():
        settings = [(magnitude, sign) for magnitude in MAGNITUDES for sign in (-1.0, 1.0)]
        batch = operate(name, pixels, *zip(*settings))
        for actual, (magnitude, sign) in zip(batch, settings):
            image = to_pillow(pixels)
            expected = from_pillow(REFERENCES[name](magnitude, sign, image.size)(image)).astype(int)
            difference = np.abs(actual - expected)
            assert difference.max() <= (1 if name in INTERPOLATED else 0), f"{kind} {magnitude} {sign}"
            np.testing.assert_array_equal(operate(name, pixels, [magnitude], [sign])[0], actual)


def test_the_largest_magnitude_posterizes_to_black_and_solarizes_everything():
    pixels = varied(3)["noise"]
    assert not operate("PosterizeIncreasing", pixels, [10.0], [1.0]).any()
    np.testing.assert_array_equal(operate("SolarizeIncreasing", pixels, [10.0], [1.0])[0], 255 - pixels)


def draw(image, path, magnitude=9.0, noise=0.5, mean=MEAN, seeds=SEEDS):
    """The results of many seeds, `(N, ...)`."""
    change = lambda images, seeds: randaugment.randaugment(images, magnitude, noise, mean, seeds)  # noqa: E731
    return over_seeds(change, seeds, path, image)


@pytest.mark.parametrize("path", PATHS)
def test_two_operations_each_applied_half_of_the_time(monkeypatch, path):
    """Each operation notes its number behind those that were applied before it."""
    note = {name: lambda notes, *_, i=i: notes * 16 + i for i, name in enumerate(REFERENCES, start=1)}
    monkeypatch.setattr(randaugment, "operations", lambda *_: note)
    notes = draw(0, path)
    first, second = notes // 16, notes % 16
    for share, expected in (((notes == 0), 0.25), (((first == 0) & (second > 0)), 0.5), ((first > 0), 0.25)):
        assert abs(share.mean() - expected) < 0.03
    applied = np.concatenate([first[first > 0], second[second > 0]])
    counts = np.bincount(applied, minlength=16)[1:]
    assert len(counts) == 15 and np.abs(counts / len(applied) - 1 / 15).max() < 0.015
    both = first > 0
    assert abs(np.corrcoef(first[both], second[both])[0, 1]) < 0.1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("magnitude", "noise"), [(5.0, 0.5), (9.0, 0.5), (9.0, 0.0)])
def test_the_strength_is_normal_within_bounds_and_the_sign_a_coin(monkeypatch, magnitude, noise, path):
    note = {"note": lambda _, strength, sign: tf.stack([strength, sign], axis=1)}
    monkeypatch.setattr(randaugment, "operations", lambda _: note)
    notes = draw(np.zeros(2), path, magnitude, noise)
    strength, sign = notes[notes[:, 1] != 0].T
    assert set(sign) == {-1.0, 1.0} and abs(sign.mean()) < 0.06
    assert strength.max() <= 1.0
    expected = np.clip(np.random.default_rng(0).normal(magnitude, noise, 100000), 0, 10) / 10
    assert abs(strength.mean() - expected.mean()) < 0.004 and abs(strength.std() - expected.std()) < 0.004
    assert abs(np.corrcoef(strength, sign)[0, 1]) < 0.06 if noise else len(set(strength)) == 1


def test_what_lies_outside_the_image_takes_the_mean_of_the_data(monkeypatch):
    monkeypatch.setattr(randaugment, "operations", lambda fill: {"fill": lambda images, *_: images * 0 + fill})
    results = draw(np.array([9, 9, 9], np.uint8), "batch", seeds=SEEDS[:20])
    assert {tuple(result) for result in results} == {(9, 9, 9), FILL}


def test_the_result_is_a_function_of_the_seed_and_one_operation_follows_the_other():
    pixels = varied(1, side=12)["noise"]
    arguments = {"noise": 0.0, "mean": MEAN[:1], "seeds": SEEDS[:60]}
    results = draw(pixels, "batch", **arguments)
    for path in PATHS:
        np.testing.assert_array_equal(results, draw(pixels, path, **arguments))
    apply_all = lambda image: [result for name in REFERENCES for result in operate(name, image, [9, 9], [-1, 1])]  # noqa: E731
    once = [pixels, *apply_all(pixels)]
    twice = [result for image in once for result in apply_all(image)]
    distances = np.abs(results[:, np.newaxis].astype(int) - np.array([*once, *twice])).max(axis=(2, 3, 4))
    assert (distances.min(axis=1) <= 1).all()
    assert len({result.tobytes() for result in results}) > 20
