"""Preparing data sets of TensorFlow Datasets, with builders made here."""

import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import prepare
from experiments.config import DataConfig
from experiments.data.sources import open_source
from experiments.errors import RunError, UserError


class TinyGrey(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel(num_classes=2)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(10), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for k in range(count):
            yield k, {"image": np.full((8, 8, 1), k, np.uint8), "label": k % 2}


class TinyManual(TinyGrey):
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Fetch grey.tar\nfrom the shop."

    def _split_generators(self, dl_manager):
        if not (dl_manager.manual_dir / "grey.tar").exists():
            raise FileNotFoundError(dl_manager.manual_dir / "grey.tar")
        return super()._split_generators(dl_manager)


class TinyUnreachable(TinyGrey):
    def _split_generators(self, dl_manager):
        raise ConnectionError("The server cannot be reached.\nMore of that.")


def test_a_data_set_is_prepared_once_and_can_be_read(tmp_path):
    said = []
    assert prepare.run("tfds:tiny_grey", str(tmp_path), log=said.append) == {"train": 10, "test": 4}
    where = tmp_path / "tiny_grey" / "1.0.0"
    assert said == [f"preparing tfds:tiny_grey in {where}", f"  {'train':<20} 10", f"  {'test':<20} 4"]
    source = open_source(DataConfig(source="tfds:tiny_grey", dir=str(tmp_path), validation_share=0.2))
    assert {name: split.num_examples for name, split in source.splits.items()} == {
        "train": 8,
        "validation": 2,
        "test": 4,
    }
    before = {path: path.stat().st_mtime_ns for path in where.iterdir()}
    assert prepare.run("tfds:tiny_grey", str(tmp_path), log=said.append) == {"train": 10, "test": 4}
    assert said[3] == f"tfds:tiny_grey is prepared in {where}."
    assert {path: path.stat().st_mtime_ns for path in where.iterdir()} == before


def test_files_that_a_person_has_to_download_are_asked_for_and_used(tmp_path):
    manual = tmp_path / "manual"
    manual.mkdir()
    for folder, where in (("", tmp_path / "downloads" / "manual"), (str(manual), manual)):
        message = (
            "tfds:tiny_manual has files that TensorFlow Datasets cannot download: put them into "
            f"{where}, or name their folder with --manual_dir. Fetch grey.tar from the shop."
        )
        with pytest.raises(UserError, match=re.escape(message)):
            prepare.run("tfds:tiny_manual", str(tmp_path), folder)
    (manual / "grey.tar").write_bytes(b"")
    assert prepare.run("tfds:tiny_manual", str(tmp_path), str(manual))["train"] == 10


def test_a_failed_download_is_one_line(tmp_path):
    message = "tfds:tiny_unreachable cannot be prepared: ConnectionError: The server cannot be reached."
    with pytest.raises(RunError) as raised:
        prepare.run("tfds:tiny_unreachable", str(tmp_path))
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("source", "manual_dir", "message"),
    [
        ("digits", "", "--source=digits: only tfds:NAME and folder:PATH can be prepared; others are used as they are."),
        ("tfds:", "", "--source=tfds:: only tfds:NAME and folder:PATH can be prepared"),
        ("tfds:tiny_grey", "/nowhere/at/all", "--manual_dir=/nowhere/at/all: there is no such folder."),
        ("tfds:no_such_thing", "", "TensorFlow Datasets knows no data set called 'no_such_thing'"),
    ],
)
def test_what_cannot_be_prepared_is_refused(tmp_path, source, manual_dir, message):
    with pytest.raises(UserError, match=re.escape(message)):
        prepare.run(source, str(tmp_path), manual_dir)
