"""Features in a file, and the search among them, against NumPy, Pillow and the saved model."""

import io
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from experiments.data.sources.digits import open_digits
from experiments.errors import UserError
from experiments.inference import extract, search
from experiments.inference.extract import images_to_extract
from experiments.inference.feature_files import read_features
from experiments.inference.search import pictures_of
from experiments.models import make_encoder
from experiments.training.workdir import record_config
from tests.experiments.images import broken_inside, encode, gradient, write
from tests.experiments.tiny import TWO_STAGES, Lines, tiny_config
from tests.small_models import randomize

CONFIG = tiny_config(model=TWO_STAGES)
BROKEN = {
    "a/cut.png": "the file is truncated",
    "b/inside.png": "it cannot be decoded",
    "b/text.jpg": "not an image",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a run with an encoder of random weights."""
    workdir = tmp_path_factory.mktemp("run")
    encoder = make_encoder(CONFIG)
    randomize({variable.path: variable for variable in encoder.weights})
    record_config(workdir, CONFIG, "pretrain")
    encoder.save(workdir / "encoder.keras")
    return workdir


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of two classes: five images of the model's size, one of them twice, and three broken files."""
    root = tmp_path_factory.mktemp("images") / "grüße"
    pixels = {f"{'ab'[i % 2]}/{i}.png": np.roll(gradient(32, 32)[..., i % 3], 5 * i, axis=1) for i in range(4)}
    pixels["b/deep/copy of 1.png"] = pixels["b/1.png"]
    for name, values in pixels.items():
        write(root / name, encode(values))
    write(root / "a/cut.png", encode(gradient(32, 32))[:-40])
    write(root / "b/inside.png", broken_inside(np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)))
    write(root / "b/text.jpg", b"text")
    return root


NAMES = ["a/0.png", "a/2.png", "b/1.png", "b/3.png", "b/deep/copy of 1.png"]


@pytest.fixture(scope="module")
def files(run, folder, tmp_path_factory):
    """`{suffix: path}` of the features of the folder; batches of 3 of its 6 images that look whole."""
    root = tmp_path_factory.mktemp("features")
    paths = {suffix: root / f"features{suffix}" for suffix in (".npz", ".parquet")}
    for path in paths.values():
        lines = Lines()
        assert extract.run(run, path, f"folder:{folder}", batch_size=3, log=lines) == 5
        assert lines[0] == f"{run / 'encoder.keras'} on 6 images of folder:{folder}"
        assert lines[1:3] == [f"{path}: 5 images, 8 features each", "skipped 3, all of them listed in the file:"]
        assert sorted(lines[3:]) == [f"  {name}: {reason}" for name, reason in BROKEN.items()]
    assert sorted(root.iterdir()) == sorted(paths.values())
    return paths


def expected_features(run, paths):
    """What the saved model makes of images of its own size, read with Pillow."""
    pixels = np.stack([np.asarray(Image.open(path), np.float64)[..., np.newaxis] for path in paths])
    return np.asarray(keras.saving.load_model(run / "encoder.keras")((pixels / 255 - 0.3) / 0.35)).mean(axis=(1, 2))


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_each_readable_image_has_its_features_under_its_name(run, folder, files, suffix):
    found = read_features(files[suffix])
    assert list(found.names) == NAMES
    assert (found.features.dtype, found.classes, list(found.labels)) == (np.float32, ("a", "b"), [0, 0, 1, 1, 1])
    expected = expected_features(run, [folder / name for name in NAMES])
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(found.features, expected, atol=1e-5)


def test_an_npz_reads_without_pickle_and_lists_what_was_skipped(files):
    with np.load(files[".npz"], allow_pickle=False) as arrays:
        assert set(arrays["splits"]) == {"train"}
        assert dict(zip(arrays["skipped"].tolist(), arrays["skipped_reasons"].tolist())) == BROKEN
        assert all(arrays[name].dtype != object for name in arrays)


def test_a_parquet_file_has_a_row_for_each_image(files):
    table = parquet.read_table(files[".parquet"])
    assert table.column_names == ["name", "split", "label", "class", "features"]
    assert table["class"].to_pylist() == ["a", "a", "b", "b", "b"]
    metadata = parquet.read_metadata(files[".parquet"]).metadata
    assert dict(zip(json.loads(metadata[b"skipped"]), json.loads(metadata[b"skipped_reasons"]))) == BROKEN


def test_the_suffix_may_be_in_capitals(run, folder, files, tmp_path):
    extract.run(run, tmp_path / "F.NPZ", f"folder:{folder}", log=Lines())
    assert list(tmp_path.iterdir()) == [tmp_path / "F.NPZ"]
    np.testing.assert_allclose(
        read_features(tmp_path / "F.NPZ").features, read_features(files[".npz"]).features, atol=1e-5
    )


def test_a_source_without_file_names_has_splits_and_positions(run, tmp_path):
    assert extract.run(run, tmp_path / "digits.npz", data="digits", batch_size=256, log=Lines()) == 1797
    found = read_features(tmp_path / "digits.npz")
    assert (found.names[0], found.names[-1], len(set(found.names))) == ("train/0", "test/538", 1797)
    content = open_digits().split("test").contents[7]
    (place,) = np.flatnonzero(found.names == "test/7")
    np.testing.assert_allclose(found.features[place], expected_features(run, [io.BytesIO(content)])[0], atol=1e-5)
    images = images_to_extract(CONFIG.data, "all")
    np.testing.assert_array_equal(pictures_of(images, ["test/7"])[0], Image.open(io.BytesIO(content)).convert("RGB"))


def cosine_similarities(features, vector):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit @ (vector / np.linalg.norm(vector))


def test_the_nearest_are_those_of_the_largest_cosine():
    features = np.random.default_rng(0).normal(size=(50, 4)) * np.arange(1, 51)[:, np.newaxis]
    similarities = cosine_similarities(features, features[7])
    order = np.argsort(-similarities)
    for left_out, expected in ((None, order), (7, order[1:])):
        positions, values = search.nearest(features[7].astype("float32"), features.astype("float32"), 9, left_out)
        np.testing.assert_array_equal(positions, expected[:9])
        np.testing.assert_allclose(values, similarities[positions], atol=1e-6)


def test_a_name_finds_its_nearest_images_and_not_itself(folder, files, tmp_path):
    features = read_features(files[".npz"]).features
    similarities = cosine_similarities(features, features[2])
    (tmp_path / "link").symlink_to(folder)
    for query in ("b/1.png", f"{folder}/b/1.png", f"{folder}/a/../b/1.png", f"{tmp_path}/link/b/1.png"):
        lines, output = Lines(), tmp_path / f"{len(query)}.png"
        (found,) = search.run(files[".npz"], [query], output, k=3, log=lines)
        assert found.position == 2 and found.neighbours[0] == 4  # its copy
        np.testing.assert_allclose(found.similarities, np.sort(similarities[[0, 1, 3, 4]])[:0:-1], atol=1e-6)
        np.testing.assert_allclose(found.similarities, similarities[found.neighbours], atol=1e-6)
        assert lines[:2] == [query, f"  {found.text_of(1.0)}  b/deep/copy of 1.png"] and lines[-1] == f"drawn: {output}"


@pytest.mark.parametrize(
    ("last", "text"), [(0.2, "1.000"), (0.98, "1.000"), (0.9975, "1.0000"), (1 - 1e-9, "1.000000"), (1.0, "1.000")]
)
def test_similarities_have_the_digits_that_tell_them_apart(last, text):
    assert search.Found("a", 0, np.array([1, 2]), np.array([1.0, last])).text_of(1.0) == text


def test_a_file_that_is_not_among_them_gets_features_of_the_same_model(folder, files, tmp_path):
    shutil.copy(folder / "a" / "2.png", tmp_path / "new.png")
    found = search.run(files[".parquet"], [str(tmp_path / "new.png"), "a/2.png"], tmp_path / "x.png", log=Lines())
    assert found[0].position is None and found[0].neighbours[0] == 1
    np.testing.assert_allclose(found[0].similarities[0], 1.0, atol=1e-5)
    np.testing.assert_allclose(found[0].similarities[1:], found[1].similarities, atol=1e-5)


def test_the_picture_shows_query_and_neighbours_in_their_shape(folder, files, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(search, "draw_search", lambda path, found, queries, pictures, caption: (
        drawn.update(queries=queries, pictures=pictures, captions=[caption(i) for i in pictures]), path.touch()
    ))  # fmt: skip
    search.run(files[".npz"], ["a/0.png"], tmp_path / "x.png", k=4, log=Lines())
    for image, name in zip((drawn["queries"][0], *drawn["pictures"].values()), ("a/0.png", *NAMES)):
        np.testing.assert_array_equal(image, np.asarray(Image.open(folder / name).convert("RGB")))
    assert drawn["captions"] == NAMES


def test_a_folder_may_have_moved_and_images_may_be_gone(folder, files, tmp_path):
    shutil.copytree(folder, tmp_path / "moved")
    (tmp_path / "moved" / "b" / "3.png").unlink()
    query, data = str(tmp_path / "moved" / "a" / "0.png"), f"folder:{tmp_path / 'moved'}"
    (found,) = search.run(files[".npz"], [query], tmp_path / "x.png", data=data, log=Lines())
    assert found.position == 0 and 3 in found.neighbours


def mistakes(run, folder, files):
    features = files[".npz"]
    return {
        "There is no .*nowhere: pretrained": lambda to: extract.run(folder / "nowhere", to),
        "holds no image files": lambda to: extract.run(run, to, f"folder:{run}"),
        "x.png: name a .npz or .parquet file": lambda to: extract.run(run, to.with_suffix(".png")),
        "features.npz already exists": lambda to: extract.run(run, features),
        "is a mix: name one source with --data": lambda to: extract.run(run, to, f"digits+folder:{folder}"),
        "There is no .*x.npz: make it with launch.extract": lambda to: search.run(to, ["a"], to),
        "encoder.keras was not written by launch.extract": lambda to: search.run(run / "encoder.keras", ["a"], to),
        "--query=a/7.png is neither an image file nor a name in .* Did you mean a/": lambda to: search.run(
            features, ["a/7.png"], to.with_suffix(".png")
        ),
        "--query=.*text.jpg cannot be read as an image": lambda to: search.run(
            features, [str(folder / "b/text.jpg")], to.with_suffix(".png")
        ),
        "--data=digits: the features are of folder:.*; only a folder can be given a new path": lambda to: search.run(
            features, ["a/0.png"], to.with_suffix(".png"), data="digits"
        ),
        "x.npz: name a .png file": lambda to: search.run(features, ["a/0.png"], to),
        "--query must name 1 to 50 images, got 0": lambda to: search.run(features, [], to),
    }


def test_mistakes_are_errors_that_say_what_to_do(run, folder, files, tmp_path):
    for message, command in mistakes(run, folder, files).items():
        with pytest.raises(UserError, match=message):
            command(pathlib.Path(tmp_path, "x.npz"))
        assert list(tmp_path.iterdir()) == [], message


def test_a_query_by_another_model_is_refused(run, folder, files, tmp_path):
    other = make_encoder(CONFIG)
    other.save(tmp_path / "encoder.keras")
    write(tmp_path / "new.png", encode(gradient(32, 32)))
    with pytest.raises(UserError, match="encoder.keras is not the model that made .*features.npz: extract again"):
        search.run(files[".npz"], [str(tmp_path / "new.png")], tmp_path / "x.png", model=tmp_path, log=Lines())
