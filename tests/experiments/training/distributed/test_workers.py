"""Two and four devices, and two workers: the same losses and weights; and what happens when a worker ends.

With ALL_DEVICES=1 in the environment every way of computing is run for both tasks, without it a part of them.
"""

import functools
import json
import os
import re
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from experiments.training.distributed.workers import DELAY
from experiments.training.loggers import read_metrics
from experiments.training.workdir import read_json
from tests.experiments.ports import free_ports
from tests.launch.commands import ROOT

STEPS, ACCUMULATION, CLIP_NORM = 20, 2, 0.02
KILLED_AT, STOPPED_AT = 12, 7
PRESET = f'''"""Pictures, on many devices."""

from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig


def get_config():
    """Returns the preset."""
    training = {{"steps": {STEPS}, "batch_size": 16, "warmup_epochs": 0, "evaluations": 2, "clip_norm": {CLIP_NORM}}}
    training |= {{"accumulation_steps": {ACCUMULATION}, "base_learning_rate": 0.1, "crop_scale": (0.5, 1.0)}}
    return Config(
        seed=3,
        model=ModelConfig(depths=(1,), dims=(4,), stem_stride=8, decoder_dim=8),
        data=DataConfig(
            image_size=32,
            channels=1,
            mean=(0.3,),
            std=(0.35,),
            source="folder:PICTURES",
            validation_share=0.25,
            test_share=0.125,
        ),
        pretrain=PretrainConfig(**training, pictures=1),
        finetune=FinetuneConfig(
            **training, ema_decay=0.7, mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, layer_decay=0.5
        ),
        log_every=1,
        checkpoint_every=5,
        evaluation_batch_size=5,
    ).to_config_dict()
'''
FILES = {"pretrain": ("fcmae.keras",), "finetune": ("classifier.keras", "classifier_ema.keras")}
ALL = os.environ.get("ALL_DEVICES") == "1"
CPUS = {"two": 2, "four": 4}
# What is compared with one device. A stopped run that has gone on is one of two workers, too.
WAYS = [("pretrain", "stopped"), ("finetune", "four"), ("finetune", "workers")]
if ALL:
    WAYS += [("pretrain", "two"), ("pretrain", "four"), ("pretrain", "workers"), ("finetune", "two")]


def workers(name, *flags, count, at_step=()):
    """The workers of a cluster on this machine; `at_step` is for the last of them."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return [
        {
            "name": name,
            "flags": [*flags, "--config.distribution=multiworker"],
            "environment": {
                "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
            },
            "at_step": at_step if index == count - 1 else (),
        }
        for index in range(count)
    ]


def alone(name, *flags):
    return [{"name": name, "flags": flags, "environment": {}, "at_step": ()}]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def outcomes(root, pictures):
    """`{scenario: [outcome of each worker]}`; the workdir of a scenario has its name."""
    preset = root / "preset.py"
    preset.write_text(PRESET.replace("PICTURES", str(pictures)))
    scenarios = {}

    def flags(workdir):
        return f"--config={preset}", f"--workdir={root / workdir}"

    for task in FILES:
        scenarios[f"{task} one"] = alone(task, *flags(f"{task} one"))
    for task, way in WAYS:
        more = [f"--config.logical_cpus={CPUS[way]}"] if way in CPUS else []
        run = alone if way in CPUS else functools.partial(workers, count=2)
        if way != "stopped":
            scenarios[f"{task} {way}"] = run(task, *flags(f"{task} {way}"), *more)
    for name, at_step in {
        "finetune killed": (KILLED_AT, signal.SIGKILL),
        "pretrain stopped": (STOPPED_AT, signal.SIGTERM),
    }.items():
        scenarios[name] = workers(name.split()[0], *flags(name), count=2, at_step=at_step)
        scenarios[f"{name}, again"] = workers(name.split()[0], *flags(name), count=2)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_", "PYTHON"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.launch.forked_workers"],
        input=json.dumps(list(scenarios.values())),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3400,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(f"{result['cpu_seconds']:.1f} s of CPU")
    return dict(zip(scenarios, result["outcomes"]))


def weights(folder, file):
    model = keras.saving.load_model(folder / file, compile=False)
    return {v.path: np.asarray(v.value) for v in model.weights if "seed_generator" not in v.path}


def column(folder, name):
    return np.array([line[name] for line in read_metrics(folder) if name in line])


@pytest.mark.parametrize(("task", "way"), WAYS)
def test_losses_and_weights_are_those_of_one_device(root, outcomes, task, way):
    end = f"{task} {way}, again" if way == "stopped" else f"{task} {way}"
    for outcome in (*outcomes[f"{task} one"], *outcomes[end]):
        assert outcome["code"] == 0, outcome["errors"]
    one, many = root / f"{task} one", root / f"{task} {way}"
    assert (column(one, "gradient_norm") > CLIP_NORM).all() and len(column(one, "loss")) == STEPS
    np.testing.assert_allclose(column(many, "loss"), column(one, "loss"), rtol=0, atol=1e-5)
    for file in FILES[task]:
        expected, actual = weights(one, file), weights(many, file)
        assert expected.keys() == actual.keys()
        for name in expected:
            np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=1e-5, err_msg=f"{file}: {name}")


@pytest.mark.parametrize(("task", "way"), WAYS)
def test_evaluation_is_that_of_one_device(root, outcomes, task, way):
    """Each image counts once, in the middle of a run and at its end."""
    one, many = root / f"{task} one", root / f"{task} {way}"
    for name in {"pretrain": ["validation_loss"], "finetune": ["validation_top1", "validation_top1_ema"]}[task]:
        assert len(column(one, name)) == 2
        np.testing.assert_allclose(column(many, name), column(one, name), rtol=0, atol=1e-5)
    expected, actual = (read_json(folder / "summary.json") for folder in (one, many))
    for name in expected.keys() - {"seconds"}:
        is_continuous = name in ("validation_loss", "feature_rank", "feature_std")
        assert actual[name] == (pytest.approx(expected[name], abs=1e-5) if is_continuous else expected[name])


def test_each_worker_evaluates_its_share_to_the_end(outcomes):
    """Of 12 validation images, twice and with an average, 3 batches; of 6 test images, for 3 models, 2 batches."""
    assert [outcome["batches"] for outcome in outcomes["finetune one"]] == [4 * 3 + 3 * 2]
    assert [outcome["batches"] for outcome in outcomes["finetune workers"]] == [4 * 2 + 3, 4 + 3]


def test_the_chief_alone_writes_and_speaks(root, outcomes):
    chief, other = outcomes["finetune workers"]
    assert other["output"] == ""
    assert "  devices       2 workers x 1 x CPU, mirrored, float32\n" in chief["output"]
    one, many = (
        sorted(re.sub("tfevents.*", "tfevents", str(path.relative_to(root / run))) for path in (root / run).rglob("*"))
        for run in ("finetune one", "finetune workers")
    )
    assert one == many


def test_a_killed_worker_ends_the_others_with_a_message(outcomes, root):
    chief, killed = outcomes["finetune killed"]
    assert (chief["code"], killed["code"]) == (1, -signal.SIGKILL)
    assert chief["seconds"] - killed["seconds"] < 60
    (line,) = [line for line in chief["errors"].splitlines() if line.startswith("error: ")]
    assert re.fullmatch(
        r"error: Lost the connection to worker 1 \(127.0.0.1:\d+\); the last good checkpoint is "
        f"{root}/finetune killed/checkpoints/ckpt-10. See the log of that worker, and restart all .*",
        line,
    )


def test_a_signal_to_one_worker_stops_all_after_the_same_step(outcomes, root):
    step = STOPPED_AT + 2 + DELAY  # it comes into the next step, which has asked already, and the one after that asks
    stopped = f"Stopped at step {step} of {STEPS}; run the same command to resume."
    chief, other = outcomes["pretrain stopped"]
    assert chief["code"] == other["code"] == 0, chief["errors"] + other["errors"]
    assert stopped in chief["errors"]
    # One that is slow finds the chief gone.
    assert stopped in other["errors"] or "Stopped with the other workers;" in other["errors"]
    assert (root / "pretrain stopped" / "checkpoints" / f"ckpt-{step}.index").exists()


def test_workers_started_again_end_in_the_weights_of_an_undisturbed_run(root, outcomes):
    for outcome in outcomes["finetune killed, again"]:
        assert outcome["code"] == 0, outcome["errors"]
    assert "  starts from   its own checkpoint of step 10\n" in outcomes["finetune killed, again"][0]["output"]
    for file in FILES["finetune"]:
        expected, actual = weights(root / "finetune workers", file), weights(root / "finetune killed", file)
        for name in expected:
            np.testing.assert_array_equal(actual[name], expected[name], err_msg=f"{file}: {name}")
