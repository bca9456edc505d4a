"""Records in a workdir that are damaged: read as far as they go, or one line that says what to do."""

import json
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import Config
from experiments.errors import UserError
from experiments.training.loggers import Loggers, parse_metrics, read_metrics
from experiments.training.pictures import draw_curves
from experiments.training.validation import Best
from experiments.training.workdir import check_recorded, finished_summary, record_config
from tests.fuzz import damaged, fuzzed

LINES = [{"step": step, "loss": 1.0 / step, "learning_rate": 1e-4} for step in range(1, 6)]
METRICS = "".join(json.dumps(line) + "\n" for line in LINES).encode()
BEST = {"step": 3, "epoch": 1.5, "weights": "plain", "validation_top1": 50.0}
ODD = [b"", b"{", b"[]", b"null", b"[" * 10**5, b"\xff\xfe", b'{"step": 1}', b'{"task": "pretrain", "config": 3}']


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    record_config(workdir, Config(), "pretrain")
    (workdir / "classifier_best.keras").touch()
    return workdir


@fuzzed(30)
@given(content=damaged(METRICS))
def test_metrics_are_read_as_far_as_their_lines_are_whole(workdir, content):
    (workdir / "metrics.jsonl").write_bytes(content)
    whole = [line for line in LINES if json.dumps(line).encode() in content.splitlines()]
    read = read_metrics(workdir)
    assert [line for line in read if line in whole] == whole or len(read) > len(whole)
    loggers = Loggers(workdir, Config())
    loggers.begin(3)
    loggers.scalars(4, {"loss": 2.0})
    loggers.close()
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line)["step"], int)
    assert read_metrics(workdir)[-1] == {"step": 4, "loss": 2.0}


def test_damaged_lines_are_left_out_and_counted_and_curves_drawn_of_the_rest(workdir):
    damaged = [
        b'{"step": "x"}',
        b'{"step": true, "loss": 1.0}',
        b'{"step": 7, "loss": [1]}',
        b'{"step": 7, "loss": true}',
    ]
    damaged += [b'{"step": 8, "loss": 1' + b"0" * 400 + b"}", b"nonsense", b"\xff\xfe", b"[" * 10**5]
    content = METRICS + b"\n" + b"\n".join(damaged)
    (workdir / "metrics.jsonl").write_bytes(content)
    assert read_metrics(workdir) == LINES
    assert parse_metrics(content) == (LINES, len(damaged))
    draw_curves(workdir)
    assert (workdir / "curves.png").stat().st_size


def outcome(function):
    """What a function returns, or the line for the user."""
    try:
        return function()
    except UserError as error:
        return str(error)


@fuzzed(30)
@given(data=st.data())
def test_a_damaged_configuration_never_lets_another_run_go_on(workdir, data):
    path = workdir / "config.json"
    good = json.dumps({"task": "pretrain", "config": Config().to_dict()}).encode()
    content = data.draw(st.one_of(damaged(good), st.sampled_from(ODD)))
    path.write_bytes(content)
    found = outcome(lambda: check_recorded(workdir, Config(), "pretrain"))
    path.write_bytes(good)
    if found == []:
        assert json.loads(content) == json.loads(good) or json.loads(content)["task"] == "pretrain"
    else:
        assert found.startswith((f"{path} is damaged: use another --workdir.", f"{workdir} holds a "))
    assert check_recorded(workdir, Config(), "pretrain") == []


@fuzzed(30)
@given(data=st.data())
def test_a_damaged_summary_or_record_of_the_best_says_what_to_do(workdir, data):
    readers = {"summary.json": lambda: finished_summary(workdir), "best.json": lambda: Best(None, workdir).record}
    for name, read in readers.items():
        path = workdir / name
        path.write_bytes(data.draw(st.one_of(damaged(json.dumps(BEST).encode()), st.sampled_from(ODD))))
        found = outcome(read)
        assert isinstance(found, dict) or found.startswith(f"{path} is damaged: delete it, and the ")
        path.unlink()
        assert read() is None


@pytest.mark.parametrize("top1", ["NaN", "1e9", '"50"', "null", "-1"])
def test_a_best_that_is_no_share_is_refused(workdir, top1):
    (workdir / "best.json").write_text(json.dumps(BEST).replace("50.0", top1))
    with pytest.raises(UserError, match="best.json is damaged: delete it"):
        _ = Best(types.SimpleNamespace(), workdir).record
    (workdir / "best.json").unlink()
