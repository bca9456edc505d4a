"""What experiments of many tests are made on."""

import numpy as np
import pytest

from experiments import finetune
from experiments.training import pictures as run_pictures
from experiments.training import run
from tests.experiments.images import encode, gradient, write

CLASSES, PER_CLASS = 3, 16


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 48 grey pictures of 32x32 pixels in three classes: an epoch of 3 batches of 16."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        for i in range(PER_CLASS):
            pixels = np.rot90(gradient(32, 32, 3)[..., label]) + rng.normal(scale=20, size=(32, 32))
            write(root / f"class_{label}" / f"{i}.png", encode(np.clip(pixels, 0, 255).astype(np.uint8)))
    return root


# What draws each figure of a run, and what stands in for it.
FIGURES = {
    "augmentation": (finetune.Finetuning, "_draw_augmentation", lambda self, run: None),
    "confusion": (finetune, "draw_confusion", lambda path, *_: path.touch()),
    "curves": (run_pictures, "draw_curves", lambda workdir: None),
}


@pytest.fixture(scope="module", autouse=True)
def no_figures(request):
    """Runs draw no figures, which takes as long as all else, but those that a module marks with `figures`."""
    wanted = [name for mark in request.node.iter_markers("figures") for name in mark.args]
    with pytest.MonkeyPatch.context() as patch:
        for target, name, substitute in (FIGURES[name] for name in FIGURES.keys() - wanted):
            patch.setattr(target, name, substitute)
        yield


@pytest.fixture
def at_step(monkeypatch):
    """Makes something happen within a step of the runs to come: `at_step(number, action)`."""
    make_training_step = run.make_training_step

    def arrange(number, action):
        def make(*arguments, **keywords):
            step = make_training_step(*arguments, **keywords)
            taken = 0

            def counted(*arguments):
                nonlocal taken
                taken += 1
                if taken == number:
                    action()
                return step(*arguments)

            return counted

        monkeypatch.setattr(run, "make_training_step", make)

    return arrange
