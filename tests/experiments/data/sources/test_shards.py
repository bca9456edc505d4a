"""Images in tar files: packed folders and WebDatasets, in an order that follows from seed, epoch and position."""

import io
import json
import os
import re
import signal
import struct
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from experiments import prepare
from experiments.config import DataConfig
from experiments.data import files, packing
from experiments.data.augmentation.mixing import Mixing
from experiments.data.pipeline import evaluation_batches, shard_of_batch, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import index, open_source, shards
from experiments.errors import RunError, UserError
from experiments.lock import sole_use_of
from tests.experiments.images import encode, gradient, write

CODING = {"JPEG": {"quality": 95}}
CLASSES, PER_CLASS = ("bus", "cat", "dog"), 12
PREPROCESSING = Preprocessing(16, 3, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), crop_scale=(0.3, 1.0), flip=True)


def photo(i, height=60, width=80):
    pixels = np.roll(gradient(height, width), 3 * i, axis=1)
    return pixels + np.random.default_rng(i).integers(0, 20, pixels.shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """36 JPEG and PNG files in three classes, of 60x80 pixels; a fourth of them is smaller than 32."""
    root = tmp_path_factory.mktemp("photographs")
    for i in range(len(CLASSES) * PER_CLASS):
        size = (20, 30) if i % 4 == 0 else (60, 80)
        kind = "jpeg" if i % 2 else "png"
        write(root / CLASSES[i % 3] / f"{i}.{kind}", encode(photo(i, *size), kind))
    return root


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(packing, "IMAGES", 5)


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("packed") / "shards"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "IMAGES", 5)
        lines = []
        prepare.run(f"folder:{folder}", output=str(root), size=32, log=lines.append)
    assert lines[-1] == f"{root}: 36 images in 8 shards"
    return root


def opened(source, **arguments):
    return open_source(DataConfig(source=source, **{"validation_share": 0.0, "test_share": 0.0, **arguments}))


def images_of(source, split="train"):
    """`{name: (bytes, names of its classes)}` of a split."""
    part = source.split(split)
    rows = zip(part.names, part.contents, part.labels, strict=True)
    return {
        name: (files.read_bytes(content), None if label < 0 else source.label_names[label])
        for name, content, label in rows
    }


def test_a_packed_folder_has_its_images_names_classes_and_small_files(folder, packed):
    source = opened(f"shards:{packed}")
    assert source.class_names == CLASSES and source.label_sets is None
    found = images_of(source)
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*")}
    assert found.keys() == paths.keys()
    for name, path in paths.items():
        content, label = found[name]
        assert label == path.parent.name
        if int(path.stem) % 4 == 0:
            assert content == path.read_bytes()
    assert source.notes == (f"36 images in 8 shards of folder:{folder}",)


def test_larger_images_are_those_of_pillow_at_the_size(folder, packed):
    for name, (content, _) in images_of(opened(f"shards:{packed}")).items():
        with Image.open(io.BytesIO(content)) as found, Image.open(folder / name) as whole:
            assert min(found.size) == min(32, min(whole.size)) and found.format == whole.format
            smaller = whole.resize(found.size, Image.Resampling.BICUBIC)
            expected = Image.open(io.BytesIO(encode(smaller, whole.format, **CODING.get(whole.format, {}))))
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), err_msg=name)


def test_a_fraction_of_a_photograph_is_decoded_no_smaller_than_twice_the_size(tmp_path):
    path = write(tmp_path / "1.jpg", encode(photo(1, 300, 400), "jpeg", quality=95))
    content, _ = packing._smaller(path, 32)
    with Image.open(io.BytesIO(content)) as found, Image.open(path) as whole:
        assert found.size == (43, 32)
        with Image.open(path) as fraction:
            fraction.draft(None, (86, 64))
            assert fraction.size == (100, 75)
            smaller = fraction.resize(found.size, Image.Resampling.BICUBIC)
        expected = Image.open(io.BytesIO(encode(smaller, "jpeg", **CODING["JPEG"])))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
        full = np.asarray(whole.resize(found.size, Image.Resampling.BICUBIC), float)
        assert np.abs(np.asarray(smaller, float) - full).mean() < 1  # of 255


def test_what_pillow_would_change_is_kept_byte_by_byte(tmp_path):
    pixels = photo(0)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 256)
    kinds = {
        "1.png": encode(deep),
        "2.png": encode(np.dstack([pixels, pixels[..., 0]])),
        "3.png": encode(Image.fromarray(pixels).quantize(16)),
        "4.gif": encode(pixels[..., 0], "gif"),
        "5.bmp": encode(pixels, "bmp"),
        "6.jpg": encode(pixels, "jpeg", "CMYK"),
        "7.png": encode(pixels, transparency=(60, 60, 220)),
    }
    kinds["8.png"] = tf.io.encode_png(pixels.astype(np.uint16) * 257).numpy()  # which Pillow reads as 8 bits
    for dtype in (np.float32, np.uint32, np.uint16):  # of which Pillow opens none
        many, files_of = np.arange(20 * 24 * 5).reshape(20, 24, 5).astype(dtype), {}
        tifffile.imwrite(files_of.setdefault("tif", io.BytesIO()), many, planarconfig="contig")
        np.save(files_of.setdefault("npy", io.BytesIO()), many)
        kinds |= {f"{many.dtype}.{suffix}": file.getvalue() for suffix, file in files_of.items()}
    for name, content in kinds.items():
        write(tmp_path / "images" / name, content)
    packing.pack(f"folder:{tmp_path / 'images'}", tmp_path / "shards", 16, log=lambda line: None)
    assert {name: content for name, (content, _) in images_of(opened(f"shards:{tmp_path / 'shards'}")).items()} == kinds


def test_how_an_image_is_to_be_turned_is_kept(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    path = write(tmp_path / "1.jpg", encode(photo(1), "jpeg", exif=exif))
    content, _ = packing._smaller(path, 32)
    with Image.open(io.BytesIO(content)) as image:
        assert image.getexif()[0x112] == 6 and image.size == (43, 32)
    # A text is no orientation, here as where an image is read.
    entry = struct.pack("<HHHI4s", 1, 0x112, 2, 2, b"6\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entry + bytes(4)
    content, _ = packing._smaller(write(tmp_path / "2.jpg", encode(photo(1), "jpeg", exif=exif)), 32)
    with Image.open(io.BytesIO(content)) as image:
        assert 0x112 not in image.getexif() and image.size == (43, 32)


def test_splits_and_several_labels_are_kept(tmp_path):
    rows = [("a", "x;y", "train"), ("b", "", "train"), ("c", "y", "val"), ("d", "x", "test")]
    for name in "abcde":
        write(tmp_path / "images" / f"{name}.png", encode(photo(ord(name), 8, 8)))
    lines = [f"{name}.png,{labels},{split}" for name, labels, split in rows]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *lines]))
    counts = prepare.run(
        f"folder:{tmp_path / 'images'}",
        output=str(tmp_path / "shards"),
        labels_file=str(tmp_path / "labels.csv"),
        log=lambda line: None,
    )
    assert counts == {"train": 2, "validation": 1, "test": 1, "unlabelled": 1}
    source = opened(f"shards:{tmp_path / 'shards'}", validation_share=0.4, test_share=0.4)
    labels = {split: {n: label for n, (_, label) in images_of(source, split).items()} for split in source.splits}
    assert labels["train"] == {"a.png": "x;y", "b.png": ""}
    assert labels["validation"] == {"c.png": "y"} and labels["test"] == {"d.png": "x"}
    assert labels["unlabelled"] == {"e.png": None} and labels["pretrain"].keys() == {"a.png", "b.png", "e.png"}


def test_missing_splits_are_held_out_as_of_a_folder(packed):
    source = opened(f"shards:{packed}", validation_share=0.25, test_share=0.25)
    sizes = [source.split(name).num_examples for name in ("train", "validation", "test")]
    assert sizes == [18, 9, 9]
    assert len({name for split in source.splits for name in source.split(split).names}) == 36


def test_packing_goes_on_where_it_was_stopped_and_comes_to_the_same_bytes(folder, packed, tmp_path, monkeypatch):
    root, write_shard = tmp_path / "shards", packing._write_shard

    def stopping(path, *arguments):
        if path.name.startswith("train-00003"):
            raise KeyboardInterrupt
        return write_shard(path, *arguments)

    def pack():
        return packing.pack(f"folder:{folder}", root, 32, log=lambda line: None)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, "_write_shard", stopping)
        pack()
    with pytest.raises(UserError, match="is not complete: run the same launch.prepare command again."):
        opened(f"shards:{root}")
    before = {path.name: path.stat().st_mtime_ns for path in root.glob("*.tar")}
    assert len(before) == 3
    damaged = root / "train-00001-of-00008.tar"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    (root / "train-00002-of-00008.json").write_text("null")
    write(root / ".unfinished-train-00003-of-00008.tar", b"killed")
    manifest = pack()
    (root / ".unfinished-train-00003-of-00008.tar").unlink(missing_ok=True)
    assert (root / "train-00000-of-00008.tar").stat().st_mtime_ns == before["train-00000-of-00008.tar"]
    for path in packed.iterdir():
        if path.suffix == ".tar" or path.name != "manifest.json":
            assert (root / path.name).read_bytes() == path.read_bytes()
    assert manifest["shards"] == json.loads((packed / "manifest.json").read_text())["shards"]
    after = {path.name: path.stat().st_mtime_ns for path in root.iterdir()}
    pack()
    assert {path.name: path.stat().st_mtime_ns for path in root.iterdir()} == after


@pytest.mark.parametrize("change", ["size", "image", "label"])
def test_other_images_labels_or_sizes_are_not_mixed_into_shards(tmp_path, change):
    for name in ("x/1.png", "x/2.png", "y/3.png"):
        write(tmp_path / "images" / name, encode(photo(1, 8, 8)))
    source, root = f"folder:{tmp_path / 'images'}", tmp_path / "shards"
    packing.pack(source, root, log=lambda line: None)
    if change == "image":
        write(tmp_path / "images/x/1.png", encode(photo(2, 9, 9)))
    elif change == "label":
        os.rename(tmp_path / "images/x/1.png", tmp_path / "images/y/1.png")
    with pytest.raises(UserError, match="holds shards of other images, labels or another --size: name a new folder"):
        packing.pack(source, root, 4 if change == "size" else 0, log=lambda line: None)


@pytest.mark.parametrize("at", ["samples_of", "checksum", "write_manifest"])
def test_packing_that_is_killed_in_its_first_shard_goes_on(tmp_path, monkeypatch, at):
    """Before its first shard is complete, its record, or the manifest with it."""
    write(tmp_path / "images/1.png", encode(photo(1, 8, 8)))
    call = getattr(packing, at)

    def killed(*arguments):
        if at != "write_manifest" or arguments[1]["shards"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)

    child = os.fork()
    if not child:
        monkeypatch.setattr(packing, at, killed)
        packing.pack(f"folder:{tmp_path / 'images'}", tmp_path / "shards", log=lambda line: None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = {path.name for path in (tmp_path / "shards").iterdir()}
    assert "manifest.json" in left and (at == "write_manifest") == ("train-00000-of-00001.tar" in left)
    manifest = packing.pack(f"folder:{tmp_path / 'images'}", tmp_path / "shards", log=lambda line: None)
    assert manifest["complete"] and manifest["images"] == 1
    assert {path.name.partition(".")[2] for path in (tmp_path / "shards").iterdir()} == {"json", "tar"}


def test_a_second_packing_into_a_folder_is_told_who_holds_it(tmp_path):
    write(tmp_path / "images/1.png", encode(photo(1, 8, 8)))
    root = tmp_path / "shards"
    with (
        sole_use_of(root, print),
        pytest.raises(UserError, match=f"{root} is in use by process {os.getpid()} .*, or use another --output."),
    ):
        packing.pack(f"folder:{tmp_path / 'images'}", root, log=lambda line: None)
    assert packing.pack(f"folder:{tmp_path / 'images'}", root, log=lambda line: None)["complete"]


def test_damaged_images_are_left_out_counted_and_named(tmp_path):
    for i in range(4):
        write(tmp_path / f"images/{i}.jpg", encode(photo(i), "jpeg"))
    content = bytearray(encode(photo(7), "jpeg", quality=95))
    content[len(content) // 2 : len(content) // 2 + 512] = bytes(512)
    write(tmp_path / "images/damaged.jpg", bytes(content))
    lines = []
    packing.pack(f"folder:{tmp_path / 'images'}", tmp_path / "shards", 32, log=lines.append)
    assert lines[-2:] == [
        "  left out: damaged.jpg: a JPEG that is damaged",
        f"{tmp_path / 'shards'}: 4 images in 1 shards, 1 left out",
    ]
    source = opened(f"shards:{tmp_path / 'shards'}")
    assert source.skipped == (("damaged.jpg", "a JPEG that is damaged"),) and source.split("train").num_examples == 4


def test_a_folder_of_damaged_images_is_told_and_an_empty_split_is_drawn_as_a_missing_one(tmp_path):
    whole, half = encode(photo(1), "jpeg"), bytearray(encode(photo(7), "jpeg", quality=95))
    half[len(half) // 2 : len(half) // 2 + 512] = bytes(512)
    write(tmp_path / "images/test/x/1.jpg", bytes(half))
    source, output = f"folder:{tmp_path / 'images/test'}", tmp_path / "none"
    with pytest.raises(UserError, match=r"no image could be packed, such as x/1.jpg: a JPEG that is damaged"):
        packing.pack(source, output, log=lambda line: None)
    for i in range(4):
        write(tmp_path / f"images/train/{'xy'[i % 2]}/{i}.jpg", whole)
    write(tmp_path / "images/test/y/2.jpg", bytes(half))
    packing.pack(f"folder:{tmp_path / 'images'}", tmp_path / "some", log=lambda line: None)
    source = opened(f"shards:{tmp_path / 'some'}", test_share=0.25)
    assert source.split("train").num_examples == 3 and source.split("test").num_examples == 1  # drawn: it has no other
    assert len(source.skipped) == 2


def test_a_file_that_is_gone_stops_packing_and_leaves_no_half_shard(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "is_damaged", lambda content: os.remove(gone) if os.path.exists(gone) else False)
    gone = write(tmp_path / "images/x/2.jpg", encode(photo(1), "jpeg"))
    write(tmp_path / "images/x/1.jpg", encode(photo(1), "jpeg"))
    images = [(str(gone.parent / name), name, []) for name in ("1.jpg", "2.jpg")]
    monkeypatch.setattr(packing, "_plan", lambda *arguments: [("a.tar", "train", images)])
    monkeypatch.setattr(packing, "AT_ONCE", 1)
    with pytest.raises(
        RunError, match=r"2\.jpg cannot be read: No such file or directory; run the same command to continue\."
    ):
        packing.pack(f"folder:{tmp_path / 'images'}", tmp_path / "shards", log=lambda line: None)
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["manifest.json"]
    with pytest.raises(RunError, match=r"2\.jpg cannot be read: No such file or directory; run the same command"):
        packing.pack(f"folder:{tmp_path / 'images'}", tmp_path / "others", log=lambda line: None)  # gone once listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "folder:{}"}, "--output is missing: name a folder for the shards"),
        ({"source": "folder:{}", "output": "{}"}, "holds other files: name a new folder."),
        ({"source": "folder:{}", "output": "{}/cat/1.jpeg"}, "1.jpeg cannot be created: File exists"),
        ({"source": "folder:{}", "output": "{}/" + 300 * "x"}, "cannot be created: File name too long"),
        ({"source": "folder:{}", "output": "{}/a\0b"}, "cannot be created: embedded null byte"),
        ({"source": "folder:{}", "output": "gs://bucket/x"}, "--output=gs://bucket/x: shards are written to a local "),
        ({"source": "folder:{}", "output": "{}/new", "size": -1}, "--size=-1 must be a number of pixels"),
        ({"source": "tfds:mnist", "output": "x"}, "--output, --size and --labels_file are for --source=folder:PATH."),
        ({"source": "digits"}, "--source=digits: only tfds:NAME and folder:PATH can be prepared; others are used"),
    ],
)
def test_what_cannot_be_packed_is_told_in_one_line(folder, arguments, message):
    values = {name: value.format(folder) if isinstance(value, str) else value for name, value in arguments.items()}
    with pytest.raises(UserError, match=re.escape(message)):
        prepare.run(**values, log=lambda line: None)


@pytest.mark.parametrize("change", ["no manifest", "damaged manifest", "missing shard", "short shard"])
def test_damaged_shards_are_told_in_one_line(packed, tmp_path, change):
    root = tmp_path / "shards"
    for path in packed.iterdir():
        write(root / path.name, path.read_bytes())
    shard, manifest = root / "train-00004-of-00008.tar", root / "manifest.json"
    if change == "no manifest":
        manifest.unlink()
    elif change == "damaged manifest":
        manifest.write_bytes(b"{")
    elif change == "missing shard":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-512])
    told = (
        "it has no manifest.json that can be read." if "manifest" in change else f"{shard} is missing or damaged: run"
    )
    with pytest.raises(UserError, match=re.escape(told)):
        opened(f"shards:{root}")


def copied(packed, root):
    for path in packed.iterdir():
        write(root / path.name, path.read_bytes())
    return root


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.pop("shards"), "manifest.json is damaged: remove "),
        (lambda m: m.pop("sha256"), "manifest.json is damaged: remove "),
        (lambda m: m.update(classes=["cat", "cat"]), "manifest.json is damaged: remove "),
        (lambda m: m["shards"][0].update(images=4), "manifest.json is damaged: remove "),
        (lambda m: m.update(format="fcmae shards, version 1"), "holds shards of another version of this software: "),
        (lambda m: m.update(format=1), "it has no manifest.json that can be read."),
    ],
)
def test_a_manifest_that_was_changed_is_told_in_one_line(packed, tmp_path, change, told):
    root = copied(packed, tmp_path / "shards")
    manifest = json.loads((root / "manifest.json").read_bytes())
    change(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=re.escape(told)):
        opened(f"shards:{root}")


def test_a_manifest_too_deep_to_be_read_is_told_in_one_line(packed, tmp_path):
    root = copied(packed, tmp_path / "shards")
    (root / "manifest.json").write_bytes(b"[" * 100_000)
    with pytest.raises(UserError, match=re.escape("it has no manifest.json that can be read.")):
        opened(f"shards:{root}")


@pytest.mark.parametrize("state", ["damaged", "gone", "cannot be opened"])
def test_a_shard_whose_record_cannot_be_used_is_read_itself(packed, tmp_path, state):
    root = copied(packed, tmp_path / "shards")
    shard, record = root / "train-00000-of-00008.tar", root / "train-00000-of-00008.json"
    if state == "damaged":
        record.write_text(record.read_text().replace("512", "513"))
    else:
        record.unlink()
    if state == "cannot be opened":
        record.symlink_to(record.name)
    assert images_of(opened(f"shards:{root}")) == images_of(opened(f"shards:{packed}"))
    content = shard.read_bytes()
    shard.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
    with pytest.raises(
        UserError, match=re.escape(f"{shard} is missing or damaged: run the same launch.prepare command")
    ):
        opened(f"shards:{root}")


def test_shards_that_were_swapped_are_told_though_they_have_the_same_size(tmp_path):
    for i in range(10):
        write(tmp_path / f"images/{i}.bmp", encode(photo(i, 8, 8), "bmp"))
    root = tmp_path / "shards"
    packing.pack(f"folder:{tmp_path / 'images'}", root, log=lambda line: None)
    one, other = root / "train-00000-of-00002.tar", root / "train-00001-of-00002.tar"
    assert one.stat().st_size == other.stat().st_size
    assert opened(f"shards:{root}").split("train").num_examples == 10
    os.rename(one, root / "x")
    os.rename(other, one)
    os.rename(root / "x", other)
    with pytest.raises(UserError, match=re.escape(f"{one} is missing or damaged: run the same launch.prepare command")):
        opened(f"shards:{root}")


def test_images_of_shards_that_were_packed_anew_are_never_those_at_the_old_places(folder, tmp_path, caplog):
    root, again = tmp_path / "shards", tmp_path / "again"
    packing.pack(f"folder:{folder}", root, 32, log=lambda line: None)
    before = opened(f"shards:{root}")
    held = images_of(before)
    packing.pack(f"folder:{folder}", again, 16, log=lambda line: None)
    for path in again.iterdir():
        os.replace(path, root / path.name)
    files._opened.cache_clear()  # those of other tests stay open, those of a long run may be closed
    assert {content for content, _ in images_of(before).values()} == {b""}
    assert (
        "it was modified after the run began, which has to be started again. Its images count as unreadable."
        in caplog.text
    )
    after = images_of(opened(f"shards:{root}"))
    assert after.keys() == held.keys() and all(
        Image.open(io.BytesIO(content)).height <= 20 for content, _ in after.values()
    )


def take(split, count, **arguments):
    """`count` batches, `{name: (count, B, ...)}`."""
    mixing = Mixing(3, mixup_alpha=0.8, cutmix_alpha=1.0)
    batches = training_batches(split, PREPROCESSING, 8, 5, num_patches=4, mixing=mixing, **arguments).take(count)
    rows = list(batches.as_numpy_iterator())
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def batches(packed):
    split = opened(f"shards:{packed}", shuffle_buffer=11).split("train")
    assert split.groups_at_once == 2
    return split, take(split, 10)


@pytest.mark.parametrize(("pipelines", "start_step"), [(1, 4), (1, 9), (2, 3), (4, 1)])  # an epoch has 4 steps
def test_batches_are_the_same_across_runs_resume_and_pipelines(packed, batches, start_step, pipelines):
    _, expected = batches
    split = opened(f"shards:{packed}", shuffle_buffer=11).split("train")
    joined = {name: np.full_like(values[start_step:], -9) for name, values in expected.items()}
    for pipeline in range(pipelines):
        share = take(split, 10 - start_step, start_step=start_step, shard=pipeline, num_shards=pipelines)
        for name, values in share.items():
            joined[name][:, shard_of_batch(8, pipeline, pipelines)] = values
    for name, values in expected.items():
        np.testing.assert_array_equal(joined[name], values[start_step:], err_msg=name)


def test_an_epoch_has_each_image_once_and_goes_from_shard_to_shard(batches):
    split, _ = batches
    orders = []
    for epoch in range(4):
        order = np.array(list(split.order(5, np.int64(epoch), np.arange(36)).as_numpy_iterator()))
        assert sorted(order) == list(range(36))
        groups = split.groups[order]
        sizes, start = np.bincount(split.groups), 0
        while start < 36:
            turn = list(dict.fromkeys(groups[start:]))[:2]  # the next two shards, until both are at their end
            end = start + sizes[turn].sum()
            assert set(groups[start:end]) == set(turn)
            start = end
        assert np.count_nonzero(np.diff(groups)) > 12  # they are mixed: one after the other it would be 7
        orders.append(tuple(order))
    assert len(set(orders)) == 4
    assert tuple(split.order(5, np.int64(2), np.arange(36)).as_numpy_iterator()) == orders[2]


def test_shards_give_the_images_of_the_folder(folder, tmp_path):
    packing.pack(f"folder:{folder}", tmp_path / "shards", log=lambda line: None)
    found = {}
    for source in (f"folder:{folder}", f"shards:{tmp_path / 'shards'}"):
        split = opened(source).split("train")
        (batch,) = evaluation_batches(split, PREPROCESSING, 36, labelled=True).as_numpy_iterator()
        names = [split.find(i)["name"].removeprefix(f"{folder}/") for i in range(36)]
        found[source] = {
            name: (label, image.tobytes()) for name, label, image in zip(names, batch["labels"], batch["images"])
        }
        assert batch["weights"].sum() == 36
    one, other = found.values()
    assert one == other


@pytest.mark.parametrize("source", ["shards:{}", "digits+shards:{}"])
def test_shards_are_read_the_same_from_memory_and_in_a_mix(packed, source):
    plain, held = (opened(source.format(packed), cache=cache).split("train") for cache in ("none", "encoded"))
    batches = [training_batches(split, PREPROCESSING, 8, 3).take(6).as_numpy_iterator() for split in (plain, held)]
    for one, other in zip(*batches):
        np.testing.assert_array_equal(one["images"], other["images"])
        assert one["weights"].sum() == 8
    if source == "shards:{}":
        assert plain.num_bytes == sum(map(len, (files.read_bytes(content) for content in plain.contents)))


def test_images_of_shards_are_read_in_few_calls_of_python(packed, monkeypatch):
    """One call an image takes as long as resizing it."""
    called, numpy_function = [], tf.numpy_function

    def counted(function, inputs, kind):
        def call(*values):
            paths = np.ravel(values[0])
            if paths[0].startswith(files.MARK):
                called.append(len(paths))
            return function(*values)

        return numpy_function(call, inputs, kind)

    monkeypatch.setattr(tf, "numpy_function", counted)
    split = opened(f"shards:{packed}").split("train")
    weights = [batch["weights"] for batch in evaluation_batches(split, PREPROCESSING, 12).as_numpy_iterator()]
    assert np.ravel(weights).tolist() == [1.0] * 36 and sorted(called) == [4, 16, 16]


def test_images_of_a_shard_that_is_gone_or_cut_count_as_unreadable(packed, tmp_path, caplog):
    for path in packed.iterdir():
        write(tmp_path / path.name, path.read_bytes())
    split = opened(f"shards:{tmp_path}").split("train")
    (tmp_path / "train-00001-of-00008.tar").unlink()
    cut = tmp_path / "train-00002-of-00008.tar"
    times = cut.stat()
    cut.write_bytes(cut.read_bytes()[:1000])
    os.utime(cut, ns=(times.st_atime_ns, times.st_mtime_ns))
    (batch,) = evaluation_batches(split, PREPROCESSING, 36).as_numpy_iterator()
    np.testing.assert_array_equal(batch["weights"], ~np.isin(split.groups, (1, 2)))
    lines = [record.message for record in caplog.records]
    assert sorted(lines) == [
        f"{tmp_path}/train-00001-of-00008.tar cannot be read: No such file or directory. Its images count as "
        "unreadable.",
        f"{cut} cannot be read: it is truncated. Its images count as unreadable.",
    ]


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


IMAGES = [encode(photo(i, 8, 8)) for i in range(6)]


def test_public_shards_are_read_with_their_labels(tmp_path):
    members = [[(f"d/{i:03}.png", IMAGES[i]), (f"d/{i:03}.cls", b"%d\n" % (10 - i))] for i in range(6)]
    write_tar(tmp_path / "a-000.tar", sum(members[:4], []))
    write_tar(tmp_path / "a-001.tar", [*reversed(members[4]), *members[5], ("d/006.txt", b"a caption")])
    source = opened(f"webdataset:{tmp_path}/a-{{000..001}}.tar")
    assert source.class_names == ("5", "6", "7", "8", "9", "10")
    assert images_of(source) == {f"d/{i:03}": (IMAGES[i], str(10 - i)) for i in range(6)}
    assert source.notes == ("6 images in 2 shards, 6 classes", "left out: 1 samples without an image")
    np.testing.assert_array_equal(source.split("train").groups, [0, 0, 0, 0, 1, 1])


@pytest.mark.parametrize(
    ("values", "labels", "several"),
    [
        ([{"label": "x"}, {"label": 3}, {"label": None}], ["x", "3", None], False),
        ([{"cls": "x", "other": 1}, "y", {}], ["x", "y", None], False),
        ([{"labels": ["x", "y", "x"]}, {"labels": []}, {"label": "y"}], ["x;y", "", "y"], True),
        ([{"label": {"no": "name"}}, {"label": "x"}, {"label": "y"}], [None, "x", "y"], False),
        ([{"labels": ["x", "y"]}, {"labels": ["x", 0.5]}, {"labels": []}, {}], ["x;y", None, "", None], True),
    ],
)
def test_labels_of_json_members(tmp_path, values, labels, several):
    members = [[(f"{i}.jpg", IMAGES[i]), (f"{i}.json", json.dumps(value).encode())] for i, value in enumerate(values)]
    source = opened(f"webdataset:{write_tar(tmp_path / 'a.tar', sum(members, []))}")
    assert [label for _, label in images_of(source).values()] == labels
    assert (source.label_sets is not None) == several


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b"{bad", b'{"label": 1.0}', b'{"label": ["x", null]}', b'{"label": "\\ud800"}', b"9" * 5000],
    ids=["deep", "broken", "float", "null in a list", "half a pair", "long"],
)
def test_images_whose_label_cannot_be_used_are_counted(tmp_path, content):
    jsons = [b'\xef\xbb\xbf{"label": "x"}', b'"y"', content, content, b"{}"]  # the first with a byte order mark
    members = [[(f"{i}.jpg", IMAGES[i]), (f"{i}.json", one)] for i, one in enumerate(jsons)]
    source = opened(f"webdataset:{write_tar(tmp_path / 'a.tar', sum(members, []))}")
    assert [label for _, label in images_of(source).values()] == ["x", "y", None, None, None]
    assert source.notes[1:] == ("2 images have a label that cannot be used, such as 2",)


def test_a_name_that_cannot_be_written_is_not_taken(tmp_path):
    members = [("0.jpg", IMAGES[0]), ("0.json", b'{"name": "\\ud800"}'), (os.fsdecode(b"\xe9.jpg"), IMAGES[1])]
    assert list(images_of(opened(f"webdataset:{write_tar(tmp_path / 'a.tar', members)}"))) == ["0", "\\xe9"]


def test_further_images_of_a_name_are_counted(tmp_path):
    members = [(name, IMAGES[i]) for i, name in enumerate(("a.jpg", "b.jpg", "b.jpg", "b.png", "c.jpg"))]
    source = opened(f"webdataset:{write_tar(tmp_path / 'a.tar', members)}")
    assert {name: content for name, (content, _) in images_of(source).items()} == {
        "a": IMAGES[0],
        "b": IMAGES[1],
        "c": IMAGES[4],
    }
    assert source.notes[1:] == ("left out: 2 images that share the name of the one before, such as b",)


@pytest.mark.parametrize(("zeros", "is_cut"), [(0, True), (512, True), (1024, False), (1536, False)])
def test_a_tar_file_without_its_end_is_noted(tmp_path, zeros, is_cut):
    path = write_tar(tmp_path / "a.tar", [("0.png", IMAGES[0])])
    path.write_bytes(
        path.read_bytes().rstrip(b"\0").ljust(-(-(512 + len(IMAGES[0])) // 512) * 512, b"\0") + bytes(zeros)
    )
    note = f"1 shards lack the end-of-file mark and may be truncated, such as {path}"
    assert opened(f"webdataset:{path}").notes[1:] == ((note,) if is_cut else ())


def test_names_of_shards_make_splits_if_some_are_to_train_on(tmp_path):
    for i, name in enumerate(("set-train-0.tar", "set-train-1.tar", "set_VAL_0.tar", "retest.tar")):
        write_tar(tmp_path / name, [(f"{i}.png", IMAGES[i]), (f"{i}.cls", b"ab"[i % 2 : i % 2 + 1])])
    source = opened(f"webdataset:{tmp_path}/*.tar", validation_share=0.3)
    assert {name: list(images_of(source, name)) for name in ("train", "validation")} == {
        "train": ["3", "0", "1"],
        "validation": ["2"],
    }
    source = opened(f"webdataset:{tmp_path}/set_{{VAL,VAL}}_?.tar")
    assert source.split("train").num_examples == 1 and source.class_names == ()


def test_a_second_start_reads_no_shard(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", [("0.png", IMAGES[0])])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "RECENT", 0)
    first = opened(f"webdataset:{tmp_path}/a.tar")
    monkeypatch.setattr(shards, "samples_of", None)
    assert images_of(opened(f"webdataset:{tmp_path}/a.tar")) == images_of(first)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "https://x/{000..9}.tar",
            "webdataset:https://x/{000..9}.tar: shards are read from local folders; download them",
        ),
        ("pipe:curl x", "webdataset:pipe:curl x: shards are read from local folders; download them first."),
        ("{}/none-{{0..3}}.tar", "there is no file {}/none-0.tar."),
        ("{}/none-{{0..999999999999}}.tar", "there is no file {}/none-0.tar."),
        ("{}/{{5..1}}.tar", "webdataset:{}/{{5..1}}.tar names no file: a range counts upwards, as in {{000..123}}."),
        ("{}/*.tar.x", "there is no file {}/*.tar.x."),
        ("{}/a.tar.gz", "{}/a.tar.gz is not a .tar file; decompress it first, as with gunzip."),
        (
            "{}/cut.tar",
            "{}/cut.tar is not a tar file, or is damaged (unexpected end of data); download or create it again.",
        ),
        (
            "{}/half.tar",
            "{}/half.tar is not a tar file, or is damaged (unexpected end of data); download or create it again.",
        ),
        ("{}/foreign.tar", "{}/foreign.tar is not a tar file, or is damaged ("),
        ("{}/text.tar", "{}/text.tar is not a tar file, or is damaged ("),
        ("{}/empty.tar", "holds no image ("),
    ],
)
def test_what_is_no_shard_is_told_in_one_line(tmp_path, pattern, message):
    whole = write_tar(tmp_path / "whole.tar", [("0.png", IMAGES[0]), ("1.png", IMAGES[1])]).read_bytes()
    write(tmp_path / "cut.tar", whole[:1600])  # in an image
    write(tmp_path / "half.tar", whole[:1100])  # in a header
    write(tmp_path / "foreign.tar", whole[:1024] + b"x" * 512 + whole[1536:])
    write(tmp_path / "a.tar.gz", b"")
    write(tmp_path / "text.tar", b"a letter, not a tar file" * 100)
    write_tar(tmp_path / "empty.tar", [("0.txt", b"a caption")])
    if "x/" not in pattern and "pipe" not in pattern:
        pattern = pattern.format(tmp_path)
        message = message.format(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        opened(f"webdataset:{pattern}")
