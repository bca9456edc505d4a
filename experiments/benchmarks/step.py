"""What a training step of FCMAE costs: forward pass, backward pass and AdamW, in time, memory and operations.

For each mask ratio the candidates are made and warmed up, each in a process of its own, then take turns of some steps,
round after round. Figures are medians over the rounds; candidates are compared within rounds. The process of a
candidate is `python -m experiments.benchmarks.step`.
"""

import contextlib
import dataclasses
import importlib.util
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from experiments.benchmarks import harness
from experiments.benchmarks.candidates import ABLATIONS, BACKENDS, POLICIES, PYTORCH, Candidate, candidate_class
from experiments.benchmarks.flops import step_flops
from experiments.config import Config, PretrainConfig, Section, from_mapping, require, size_text
from experiments.errors import RunError, UserError
from experiments.provenance import provenance
from experiments.types import Log
from fcmae.encoder import EXECUTIONS
from fcmae.masking import num_visible

CANDIDATES = (*EXECUTIONS, PYTORCH)
# Processes share a GPU, so none may take all of its memory beforehand; nothing here needs more than one process.
ENVIRONMENT = {
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
# Sides of matrices that are large enough for the best rate of the device, and for how long they are multiplied.
CPU_MATRIX_SIZE, DEVICE_MATRIX_SIZE, MATRIX_SECONDS = 2048, 8192, 0.3


@dataclasses.dataclass(frozen=True)
class StepSettings(Section):
    """What is measured.

    Args:
        config: sizes of model, images and batch; parts of a batch and clipping of gradients are left out.
        mask_ratio: mask ratios, one table for each; 0 stands for a single masked patch, because without one
            there is no loss. Empty for that of `config`.
        candidates: timed in turn: `sparse` and `dense`, the executions of the Keras model, and `pytorch`.
        ablate: what makes the step fast; for each there is one candidate more, the first of `candidates` without it,
            on TensorFlow and a CPU.
        precision: `float32` or `bfloat16`; empty for that of `config`, of which `auto` counts as `float32`.
        backend: of Keras: `tensorflow`, `jax` or `torch`.
        rounds: how often every candidate has its turn.
        steps: training steps of a turn.
        warmup: training steps before the first round, the ones that compile among them. At least three: the first
            allocates the optimizer's moments, and the peak of memory is that of the others.
    """

    config: Config = Config(pretrain=PretrainConfig(batch_size=8))
    mask_ratio: tuple[float, ...] = ()
    candidates: tuple[str, ...] = EXECUTIONS
    ablate: tuple[str, ...] = ()
    precision: str = ""
    backend: str = "tensorflow"
    rounds: int = 10
    steps: int = 3
    warmup: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.precision:
            names = {"auto": "float32", **{policy: name for name, policy in POLICIES.items()}}
            policy = self.config.precision
            require(policy in names, f"precision={policy} is not timed: use --precision, one of {', '.join(POLICIES)}.")
            object.__setattr__(self, "precision", names[policy])
        self.require_one_of("precision", POLICIES)
        self.require_one_of("backend", BACKENDS)
        require(self.candidates, f"candidates is empty: name one or more of {', '.join(CANDIDATES)}.")
        self.require_one_of("candidates", CANDIDATES)
        self.require_one_of("ablate", ABLATIONS)
        self.require_distinct("candidates", "ablate", "mask_ratio")
        self.require_at_least(1, "rounds", "steps")
        self.require_at_least(3, "warmup")
        require(
            not self.ablate or (self.backend == "tensorflow" and self.candidates[0] != PYTORCH),
            "ablate is for TensorFlow: use backend=tensorflow, and sparse or dense as the first of candidates.",
        )
        require(self.config.pretrain.masking == "every_layer", "A step with pretrain.masking=after_stem is not timed.")
        model = self.config.model
        require(
            PYTORCH not in self.candidates
            or (model.version == 2 and model.response_normalization and model.decoder_depth == 1)
            and self.config.pretrain.normalize_targets,
            "The PyTorch model supports only model.version=2, model.response_normalization, model.decoder_depth=1 and "
            "pretrain.normalize_targets, unlike this configuration: leave pytorch out of candidates.",
        )
        for ratio in self.ratios:
            self.at(ratio)

    @property
    def ratios(self) -> tuple[float, ...]:
        """The mask ratios to time."""
        return self.mask_ratio or (self.config.pretrain.mask_ratio,)

    @property
    def named(self) -> dict[str, tuple[str, str]]:
        """All candidates: `{name: (candidate, ablation or an empty text)}`."""
        whole = {candidate: (candidate, "") for candidate in self.candidates}
        first = self.candidates[0]
        return whole | {f"{first} without {ablation}": (first, ablation) for ablation in self.ablate}

    def at(self, ratio: float, candidate: str = PYTORCH) -> Config:
        """Returns the configuration of a candidate at one of the mask ratios."""
        pretrain = dataclasses.replace(
            self.config.pretrain,
            mask_ratio=ratio or 1 / self.config.num_patches,
            accumulation_steps=1,
            execution="dense" if candidate == PYTORCH else candidate,
        )
        return dataclasses.replace(self.config, pretrain=pretrain)


def run(settings: StepSettings, log: Log = print) -> dict[str, Any]:
    """Measures, and prints a table for each mask ratio.

    Args:
        settings: `StepSettings`.
        log: function that takes a line for the user.

    Returns:
        Everything measured, as plain values; what `measure` returns is in the list `tables`.

    Raises:
        UserError: if a package is missing that a candidate needs.
        RunError: if a candidate fails.
    """
    _check_packages(settings)
    results = {"what": "step", "settings": dataclasses.asdict(settings), **provenance(), "tables": []}
    config = settings.config
    size = f"{size_text(config.data.image_size)}x{config.data.channels}"
    facts = {
        "model": f"{_model(config)}, decoder {config.model.decoder_dim}",
        "images": f"{config.pretrain.batch_size} of {size} a step",
        "backend": f"{settings.backend}, {settings.precision}",
        "rounds": f"{settings.rounds} of {settings.steps} steps each, after {settings.warmup} warmup steps",
    }
    for line in harness.heading_lines("benchmark of training steps: forward, backward, AdamW", facts, results):
        log(line)
    for ratio in settings.ratios:
        table = measure(settings, ratio, log)
        results["tables"].append(table)
        for line in report_lines(table):
            log(line)
    return results


def _check_packages(settings: StepSettings) -> None:
    for name in settings.candidates:
        package = "torch" if name == PYTORCH else settings.backend
        if importlib.util.find_spec(package) is None:
            flag = "--candidates=pytorch" if name == PYTORCH else f"--backend={package}"
            raise UserError(f"{flag} needs {package}, which is not installed: pip install {package}")


def _model(config: Config) -> str:
    depths, dims = config.model.stages
    return f"depths {depths}, dims {dims}" if config.model.depths else config.model.variant


def measure(settings: StepSettings, ratio: float, log: Log) -> dict[str, Any]:
    """Times the candidates at one mask ratio.

    Returns:
        A dictionary: `mask_ratio` as it was timed and `requested_mask_ratio`, `num_patches`, `num_visible`,
        `candidates` with the figures of each, and `ratios` of speed, two by two.

    Raises:
        RunError: if a candidate fails, or its loss is not finite.
    """
    config, seconds, candidates = settings.at(ratio), {}, {}
    patches, visible = config.num_patches, num_visible(config.num_patches, config.pretrain.mask_ratio)
    why = "" if ratio else " (without a masked patch there is no loss)"
    log(f"mask ratio {config.pretrain.mask_ratio:.4g}: {patches - visible} of {patches} patches masked{why}")
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in settings.named:
            workers[name] = stack.enter_context(worker(settings, ratio, name))
            opening = workers[name].opening
            log(f"  {name}: first step after {opening['seconds_until_first_step']:.1f} s, on {opening['device']}")
        turns = harness.take_turns(workers, settings.rounds)
    products = {name: harness.summarize(turn["flops_per_second"] for turn in own) for name, own in turns.items()}
    # One measure for all: the best that any candidate's framework makes of the device.
    best_product = max(rates["median"] for rates in products.values())
    for name, own in turns.items():
        if not all(math.isfinite(turn["loss"]) for turn in own):
            raise RunError(f"The loss of {name} is not finite, so its speed means nothing.")
        seconds[name] = [turn["seconds"] / settings.steps for turn in own]
        parts = step_flops(config, *settings.named[name])
        rate = sum(parts.values()) / harness.summarize(seconds[name])["median"]
        candidates[name] = {
            **workers[name].opening,
            "seconds_per_step": harness.summarize(seconds[name]),
            "images_per_second": harness.summarize(config.pretrain.batch_size / value for value in seconds[name]),
            "last_loss": own[-1]["loss"],
            "others_cores": [turn["others_cores"] for turn in own],
            "flops_per_step": {"total": sum(parts.values()), **parts},
            "flops_per_second": rate,
            "matrix_product_flops_per_second": products[name],
            "share_of_matrix_product": rate / best_product,
        }
    return {
        "requested_mask_ratio": ratio,
        "mask_ratio": config.pretrain.mask_ratio,
        "num_patches": patches,
        "num_visible": visible,
        "matrix_product_flops_per_second": best_product,
        "candidates": candidates,
        "ratios": harness.speed_ratios(seconds),
    }


def report_lines(table: Mapping[str, Any]) -> list[str]:
    """Returns the lines that show what `measure` returns."""
    candidates = table["candidates"]
    columns = ("images/s", "(lowest - highest)", "GFLOP/step", "GFLOP/s", "of matmul", "peak MiB", "above import")
    return [
        *harness.table_lines(columns, {name: _cells(figures) for name, figures in candidates.items()}),
        *(
            f"  {first} is {harness.spread(figures, '.2f')} times as fast as {second}"
            for (first, second), figures in ((name.split("/"), figures) for name, figures in table["ratios"].items())
            if "without" not in first
        ),
        f"  large matmul: {table['matrix_product_flops_per_second'] / 1e9:,.0f} GFLOP/s",
        *harness.load_lines(candidates),
        *(f"  {figures['note']}" for figures in candidates.values() if figures["note"]),
    ]


def _cells(figures: Mapping[str, Any]) -> list[str]:
    speed, memory = figures["images_per_second"], figures["memory"]
    peak, above = memory["device_peak"], "(device)"
    if peak is None:
        peak = memory["resident_peak"]
        above = f"{(peak - memory['resident_after_import']) / 2**20:,.0f}"
    return [
        f"{speed['median']:,.2f}",
        f"({speed['smallest']:,.2f} - {speed['largest']:,.2f})",
        f"{figures['flops_per_step']['total'] / 1e9:,.2f}",
        f"{figures['flops_per_second'] / 1e9:,.1f}",
        f"{figures['share_of_matrix_product']:.1%}",
        f"{peak / 2**20:,.0f}",
        above,
    ]


def draw_mask_ratios(path: pathlib.Path, results: Mapping[str, Any]) -> None:
    """Draws the time of a step over the share of visible patches, a curve for each candidate.

    The band holds the middle half of the rounds.

    Args:
        path: of the PNG file.
        results: what `run` returns, for two or more mask ratios.
    """
    from matplotlib import figure

    tables = sorted(results["tables"], key=lambda table: table["num_visible"])
    shares = [table["num_visible"] / table["num_patches"] for table in tables]
    picture = figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes = picture.add_subplot()
    for name in tables[0]["candidates"]:
        seconds = [table["candidates"][name]["seconds_per_step"] for table in tables]
        middle, lower, upper = (
            [1000 * value[bound] for value in seconds] for bound in ("median", "lower_quartile", "upper_quartile")
        )
        (line,) = axes.plot(shares, middle, marker="o", label=name)
        axes.fill_between(shares, lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)
    config = from_mapping(Config, results["settings"]["config"], "")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0)
    axes.set_xlabel("share of visible patches")
    axes.set_ylabel("milliseconds a training step")
    images = f"{config.pretrain.batch_size} images of {size_text(config.data.image_size)} pixels"
    axes.set_title(f"{_model(config)}, {images}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    picture.savefig(path, dpi=120)


def worker(settings: StepSettings, ratio: float, name: str) -> harness.Worker:
    """Starts the process of a candidate, whose turns have the figures of `_start`; `name` is one of `named`."""
    task = {"settings": dataclasses.asdict(settings), "ratio": ratio, "name": name}
    return harness.Worker(name, "experiments.benchmarks.step", task, worker_environment(settings, name))


def worker_environment(settings: StepSettings, name: str) -> dict[str, str]:
    """Returns the variables of the environment for the process of a candidate."""
    candidate, ablation = settings.named[name]
    environment = {"KERAS_BACKEND": "torch" if candidate == PYTORCH else settings.backend, **ENVIRONMENT}
    if ablation == "onednn":
        environment["TF_ENABLE_ONEDNN_OPTS"] = "0"
    return environment


def _start(task: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[str], dict]]:
    """Makes and warms up a candidate; see `serve`. A turn has `seconds`, `loss`, `others_cores`, `flops_per_second`."""
    settings = from_mapping(StepSettings, task["settings"], "")
    name, ablation = settings.named[task["name"]]
    cls = candidate_class(settings.backend, name)
    after_import, started = harness.resident_peak(), time.perf_counter()
    candidate = cls(settings.at(task["ratio"], name), settings.precision, ablation)
    before_steps = harness.resident_peak()
    first_loss = candidate.run(1)
    first_step = time.perf_counter() - started
    candidate.run(settings.warmup - 1)
    memory = {
        "resident_after_import": after_import,
        "resident_before_first_step": before_steps,
        "resident_peak": harness.resident_peak(),
        "device_peak": candidate.device_peak(),
    }
    product_rate = _matrix_product(candidate, settings.precision)

    def turn(_: str) -> dict[str, Any]:
        load, started = harness.OthersLoad(), time.perf_counter()
        loss = candidate.run(settings.steps)
        seconds, others = time.perf_counter() - started, load.cores()
        return {"seconds": seconds, "loss": loss, "others_cores": others, "flops_per_second": product_rate()}

    opening = {
        "device": candidate.device,
        "note": candidate.note,
        "first_loss": first_loss,
        "seconds_until_first_step": first_step,
        "memory": memory,
    }
    return opening, turn


def _matrix_product(candidate: Candidate, precision: str) -> Callable[[], float]:
    """Returns the function that measures at how many operations a second large matrices are multiplied."""
    size = CPU_MATRIX_SIZE if candidate.device == "CPU" else DEVICE_MATRIX_SIZE
    rng = np.random.default_rng(0)
    # Any times multiplied by the second, the first stays as large; each product is a factor of the next.
    left, right = (
        keras.ops.convert_to_tensor(rng.normal(scale=size**-0.5, size=(size, size)), dtype=precision) for _ in range(2)
    )

    def seconds(times: int) -> float:
        started, product = time.perf_counter(), left
        for _ in range(times):
            product = keras.ops.matmul(product, right)
        float(product[0, 0])  # waits for the device
        return time.perf_counter() - started

    seconds(1)
    times = max(1, round(MATRIX_SECONDS / seconds(1)))
    return lambda: 2 * size**3 * times / seconds(times)


if __name__ == "__main__":
    harness.serve(_start)
