"""Labels of a folder from a table: which images get which, what is left, and what a wrong table is told."""

import os
import re
import sys

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from experiments.config import DataConfig
from experiments.data.sources import open_source
from experiments.errors import UserError
from tests.experiments.images import encode, gradient, write

IMAGE = encode(gradient(8, 8))
NAMES = ("a/1.png", "a/2.png", "b/3.png", "b/4.png", "5.png", "c/6.png")


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        write(tmp_path / "images" / name, IMAGE)
    return tmp_path / "images"


def open_labelled(root, text, suffix=".csv", **arguments):
    """Opens the folder with a labels file of this text, or of these bytes."""
    file = root.parent / f"labels{suffix}"
    write(file, text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    shares = {"validation_share": 0.0, "test_share": 0.0, **arguments}
    return open_source(DataConfig(source=f"folder:{root}", labels_file=str(file), **shares))


def labelled(source, split, root):
    """`{path: names of its classes}` of a split; -1 is None."""
    found = source.split(split)
    names = [os.path.relpath(os.fsdecode(path), root) for path in found.contents]
    assert len(set(names)) == len(names)
    return {name: None if label < 0 else source.label_names[label] for name, label in zip(names, found.labels)}


ONE_EACH = "path,label\nb/3.png,dog\na/1.png,cat\na/2.png,dog\nc/6.png,\n"


def test_single_labels_are_classes_and_the_other_images_are_for_pretraining(root):
    source = open_labelled(root, ONE_EACH)
    assert source.class_names == ("cat", "dog") and source.label_sets is None
    train = {"a/1.png": "cat", "a/2.png": "dog", "b/3.png": "dog"}
    assert labelled(source, "train", root) == train
    rest = dict.fromkeys(set(NAMES) - set(train))
    assert labelled(source, "unlabelled", root) == rest
    assert labelled(source, "pretrain", root) == train | rest
    assert source.notes == (
        f"6 images, 2 classes from {root.parent}/labels.csv",
        "3 images without a label are for pretraining alone",
    )


def test_a_table_of_all_images_leaves_none_for_pretraining_alone(root):
    text = "label,path,note\n" + "".join(f"{'xy'[i % 2]},{name},of no use\n" for i, name in enumerate(NAMES))
    source = open_labelled(root, text)
    assert set(source.splits) == {"train", "validation", "test"} and source.split("train").num_examples == 6


def test_several_labels_are_sets_of_classes_and_none_is_a_set_too(root):
    source = open_labelled(
        root, "path,label\na/1.png,cat; dog ;cat\na/2.png,dog\nb/3.png,\nb/4.png,dog;cat;\n5.png,elk\n"
    )
    assert source.class_names == ("cat", "dog", "elk")
    found = labelled(source, "train", root)
    assert found == {"a/1.png": "cat;dog", "a/2.png": "dog", "b/3.png": "", "b/4.png": "cat;dog", "5.png": "elk"}
    split = source.split("train")
    sets = {os.path.basename(os.fsdecode(path)): source.label_sets[i] for path, i in zip(split.contents, split.labels)}
    expected = {"1": (1, 1, 0), "2": (0, 1, 0), "3": (0, 0, 0), "4": (1, 1, 0), "5": (0, 0, 1)}
    assert {name[0]: tuple(one) for name, one in sets.items()} == expected
    assert list(labelled(source, "unlabelled", root)) == ["c/6.png"]


def test_numbers_are_classes_in_their_order(root):
    source = open_labelled(root, "path,label\na/1.png,10\na/2.png,9\nb/3.png,0\n")
    assert source.class_names == ("0", "9", "10")
    assert labelled(source, "train", root) == {"a/1.png": "10", "a/2.png": "9", "b/3.png": "0"}


@pytest.mark.parametrize(
    ("labels", "class_names"),
    [
        (("1.0", "10.0", "2.0", "2"), ("1", "2", "10")),
        (("1.0", "10.0", "1.5", "2"), ("1.0", "1.5", "10.0", "2")),
        (("1.0", "10.0", "v1.0", ""), ("1.0", "10.0", "v1.0")),
        (("-1.0", "1.0", "", ""), ("-1", "1")),
        (("2", "01", "1", "001"), ("001", "01", "1", "2")),
        (("9" * 5000, "10", "9", ""), ("10", "9", "9" * 5000)),
    ],
    ids=["whole", "a fraction", "a text", "negative", "equal", "as long as a text"],
)
def test_labels_that_are_all_whole_numbers_are_integers(root, labels, class_names):
    rows = "".join(f"{name},{label}\n" for name, label in zip(NAMES, labels))
    assert open_labelled(root, f"path,label\n{rows}").class_names == class_names


def test_splits_of_the_table_count_wherever_the_images_lie(root):
    rows = ("a/1.png,x,train", "b/3.png,y,Train", "a/2.png,x,val", "b/4.png,y,test", "5.png,,train", "c/6.png,,test")
    text = "\n".join(("path,label,split", *rows))
    source = open_labelled(root, text, validation_share=0.4, test_share=0.4)
    assert labelled(source, "train", root) == {"a/1.png": "x", "b/3.png": "y"}
    assert labelled(source, "validation", root) == {"a/2.png": "x"}
    assert labelled(source, "test", root) == {"b/4.png": "y"}
    assert labelled(source, "unlabelled", root) == {"5.png": None}
    assert source.skipped == (("c/6.png", "it has no label"),)
    assert source.notes[-1] == "left out: 1 images without a label"


def test_without_splits_in_the_table_those_of_the_sub_folders_count(tmp_path):
    root = tmp_path / "images"
    for name in ("train/1.png", "train/2.png", "train/3.png", "val/4.png", "val/5.png", "test/6.png"):
        write(root / name, IMAGE)
    source = open_labelled(root, "path,label\ntrain/1.png,x\ntrain/2.png,y\nval/4.png,y\n", test_share=0.5)
    assert labelled(source, "validation", root) == {"val/4.png": "y"}
    assert list(labelled(source, "unlabelled", root)) == ["train/3.png"]  # of the others nothing is learned
    sizes = [source.split(name).num_examples for name in ("train", "test", "pretrain")]
    assert sizes == [1, 1, 2]  # the test of half of the labelled training images: no row is of the folder's
    assert [name for name, _ in source.skipped] == ["test/6.png", "val/5.png"]


def test_held_out_images_are_labelled_ones_and_are_not_pretrained_on(root):
    source = open_labelled(root, ONE_EACH, validation_share=0.33, test_share=0.33)
    parts = [set(labelled(source, name, root)) for name in ("train", "validation", "test", "unlabelled")]
    assert [len(part) for part in parts] == [1, 1, 1, 3] and len(set.union(*parts)) == 6
    assert set(labelled(source, "pretrain", root)) == parts[0] | parts[3]


def test_names_of_any_bytes_and_tables_of_spreadsheets(root):
    name = os.fsdecode(b"caf\xe9, \xfc.png")
    write(root / name, IMAGE)
    text = f'\ufeffpath,label\r\n"{name}",d\u00e9j\u00e0\r\n\r\n./a//1.png,vu\r\n{root}/a/2.png,vu\r\n'
    source = open_labelled(root, text)
    assert labelled(source, "train", root) == {name: "d\u00e9j\u00e0", "a/1.png": "vu", "a/2.png": "vu"}


def test_rows_of_unreadable_files_are_counted(root):
    write(root / "a/2.png", b"no image")
    source = open_labelled(root, ONE_EACH)
    assert "1 rows are of files that cannot be read" in source.notes
    assert labelled(source, "train", root) == {"a/1.png": "cat", "b/3.png": "dog"}
    assert source.skipped == (("a/2.png", "not an image"),)


@pytest.mark.parametrize("several", [False, True])
def test_parquet_is_read_as_csv_is(root, tmp_path, several):
    paths, splits = ["a/1.png", "a/2.png", "b/3.png", "b/4.png"], ["train", "train", "test", "val"]
    labels = [["cat", "dog"], ["dog"], [], ["cat"]] if several else [10, 9, 9, 10]
    parquet.write_table(pyarrow.table({"label": labels, "path": paths, "split": splits}), tmp_path / "table.parquet")
    source = open_labelled(root, (tmp_path / "table.parquet").read_bytes(), ".parquet")
    texts = [";".join(one) for one in labels] if several else labels
    rows = [f"{path},{label},{split}\n" for path, label, split in zip(paths, texts, splits)]
    from_csv = open_labelled(root, "path,label,split\n" + "".join(rows))
    assert source.class_names == from_csv.class_names == (("cat", "dog") if several else ("9", "10"))
    for split in ("train", "validation", "test", "unlabelled"):
        assert labelled(source, split, root) == labelled(from_csv, split, root)


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([10.0, NAN, 2.0, None], ["10", None, "2", None]),
        ([[10.0], [2.0], [NAN], []], ["10", "2", None, None]),
        ([b"a", "b\u00e9".encode(), b"caf\xe9", None], ["a", "b\u00e9", "caf\\xe9", None]),
    ],
    ids=["floats", "lists of floats", "bytes"],
)
def test_labels_of_parquet_may_be_floats_with_gaps_and_bytes(root, tmp_path, values, labels):
    paths = [name.encode() for name in NAMES[:4]]
    parquet.write_table(pyarrow.table({"path": paths, "label": values}), tmp_path / "table.parquet")
    source = open_labelled(root, (tmp_path / "table.parquet").read_bytes(), ".parquet")
    expected = {name: label for name, label in zip(NAMES, labels) if label}
    assert labelled(source, "train", root) == expected and source.get("unlabelled").num_examples == 6 - len(expected)


def test_labels_of_a_list_may_be_on_lines_of_their_own_and_hold_odd_separators(root):
    table = 'path,label\r\n{},"a;\nb\n"\r\n{},c\x0c\u2028d\r\n'.format(*NAMES[:2])
    assert open_labelled(root, table.encode()).class_names == ("a", "b", "c\\x0c\\u2028d")


def test_a_separator_within_a_label_of_a_parquet_list_is_told(root, tmp_path):
    for labels, is_error in ((["a;b"], True), (["a;b", "c"], True), (["a", "b"], False)):
        table = pyarrow.table({"path": NAMES[:2], "label": [["x"], labels]})
        parquet.write_table(table, tmp_path / "table.parquet")
        content = (tmp_path / "table.parquet").read_bytes()
        if is_error:
            with pytest.raises(UserError, match=r"labels\.parquet, row 2: a label of the list a;b.* contains ';'\."):
                open_labelled(root, content, ".parquet")
        else:
            assert open_labelled(root, content, ".parquet").class_names == ("a", "b", "x")


def test_texts_of_parquet_that_are_not_utf_8_are_told(root, tmp_path):
    texts = pyarrow.array([b"caf\xe9"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"path": [NAMES[0]], "label": texts}), tmp_path / "table.parquet")
    with pytest.raises(UserError, match=r"labels\.parquet is not a Parquet file: 'utf-8' codec can't decode"):
        open_labelled(root, (tmp_path / "table.parquet").read_bytes(), ".parquet")


def test_parquet_without_pyarrow_names_it(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"labels\.parquet: reading Parquet needs pyarrow: pip install pyarrow, or"):
        open_labelled(root, b"PAR1", ".parquet")


WRONG = {
    "unknown path": (
        "path,label\na/1.png,x\na/9.png,y\n8.png,y\n",
        "{file}, row 3: there is no image a/9.png in {root} (1 more missing); write paths relative to that folder, "
        "with suffix, or remove the rows.",
    ),
    "path without suffix": ("path,label\na/1,x\n", "{file}, row 2: there is no image a/1 in {root}; write paths"),
    "path outside": ("path,label\n../images/../x.png,x\n", "{file}, row 2: there is no image ../images/../x.png in"),
    "no path": ("path,label\na/1.png,x\n,y\n", "{file}, row 3 has no path; add it or remove the row."),
    "two rows": (
        "path,label\na/1.png,x\nb/3.png,y\n./a/1.png,y\n",
        "{file}: rows 2 and 4 are both for ./a/1.png; keep one, with several labels as a;b.",
    ),
    "unknown split": (
        "path,label,split\na/1.png,x,dev\n",
        "{file}, row 2: split 'dev' is not train, validation or test.",
    ),
    "no split": ("path,label,split\na/1.png,x\n", "{file}, row 2: split '' is not train, validation or test."),
    "nothing to train on": (
        "path,label,split\na/1.png,x,test\na/2.png,y,test\n",
        "{file} has no row of the split train with a label and an image that can be read.",
    ),
    "empty split": (
        "path,label,split\na/1.png,x,train\na/2.png,y,train\nb/3.png,,val\n",
        "{file} has no row of the split validation with a label and an image that can be read.",
    ),
    "one class": (
        "path,label\na/1.png,x\na/2.png,x\n",
        "The readable images in {file} have only the class x; two or more",
    ),
    "no class": (
        "path,label\na/1.png,\n",
        "The readable images in {file} have no class; two or more classes are needed.",
    ),
    "no rows": ("path,label\n", "{file} has no rows; add one for each labelled image."),
    "empty": ("", "{file} needs a column path in its first line, which has nothing."),
    "no header": ("a/1.png,x\n", "{file} needs a column path in its first line, which has 'a/1.png', 'x'."),
    "semicolons": (
        "path;label\na/1.png;x\n",
        "{file} needs a column path in its first line, which has 'path;label'; separate cells by commas.",
    ),
    "a column twice": ("path,label,label\na/1.png,x,y\n", "{file} needs a column label in its first line, which has"),
    "an image": (IMAGE, "{file}"),
    "a comma in a label": (
        "path,label\na/1.png,x\n\na/2.png,y,z\n",
        "{file}, row 4 has 3 cells (a/2.png,y,z) where the first line has 2: quote cells that contain commas, "
        "close all quotes, and omit no cell.",
    ),
    "a row without the cell of a label": (
        "path,label\na/1.png\n",
        "{file}, row 2 has 1 cells (a/1.png) where the first",
    ),
    "an open quote": (
        'path,label\na/1.png,x\n"a/2.png,y\n' + "b/3.png,x\n" * 99,
        "{file}, row 3 has 1 cells (a/2.png,y\\nb/3.png,x\\nb/3.png,x\\nb/3.png,x\\nb/3.png,x\\nb/...) where the first",
    ),
    "a path of two lines": ('path,label\n"a\n/1.png",x\n', "{file}, row 2: there is no image a\\n/1.png in {root};"),
    "a split of two lines": (
        'path,label,split\na/1.png,x,"a\nb"\n',
        "{file}, row 2: split 'a\\nb' is not train, validation or test.",
    ),
    "one class of two lines": (
        'path,label\na/1.png,"x\ny"\n',
        "{file}, row 2: the label 'x\\ny' has a line break; close the quote before it.",
    ),
    "UTF-16": ("path,label\na/1.png,x\n".encode("utf-16").decode("latin-1"), "save it as UTF-8."),
    "a long first line": ("p" * 1000, "{file} needs a column path in its first line, which has 'pppp"),
    "a long field": (
        "path,label\n" + "x" * 200_000 + ",y\n",
        "{file} is not a comma-separated CSV file: field larger than",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_table_that_does_not_fit_is_told_in_one_line(root, kind):
    text, message = WRONG[kind]
    expected = message.format(file=root.parent / "labels.csv", root=root)
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        open_labelled(root, text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(root)) * 2 + 300


def test_a_missing_table_and_a_damaged_one_are_told_too(root):
    config = {"source": f"folder:{root}", "validation_share": 0.0, "test_share": 0.0}
    for suffix in ("csv", "parquet"):
        with pytest.raises(
            UserError, match=r"data\.labels_file=.*none\.\w+ cannot be read: No such file or directory\."
        ):
            open_source(DataConfig(labels_file=str(root / f"none.{suffix}"), **config))
    with pytest.raises(UserError, match=r"labels\.parquet is not a Parquet file: "):
        open_labelled(root, b"PAR1 and no more", ".parquet")


@pytest.mark.parametrize("source", ["digits", "tfds:mnist", "folder:a+folder:b"])
def test_a_labels_file_is_for_a_single_folder(source):
    with pytest.raises(
        UserError, match=re.escape(f"data.labels_file is for a single folder:PATH, not data.source={source!r}")
    ):
        DataConfig(source=source, labels_file="labels.csv")


def test_the_order_of_the_rows_does_not_matter(root):
    head, *rows = ONE_EACH.splitlines()
    sources = [open_labelled(root, "\n".join([head, *lines])) for lines in (rows, rows[::-1])]
    for name in ("train", "pretrain"):
        one, other = (source.split(name) for source in sources)
        np.testing.assert_array_equal(one.contents, other.contents)
        np.testing.assert_array_equal(one.labels, other.labels)
