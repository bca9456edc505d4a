"""Fine-tuning: a classifier learns from labelled images, on top of a pretrained encoder or from scratch."""

import functools

import keras

from experiments.data.augmentation.mixing import Mixing
from experiments.data.picture import augmented_examples, draw_augmentation
from experiments.data.sources import open_source
from experiments.data.subset import label_subset
from experiments.errors import UserError
from experiments.evaluation.classification import TopOne
from experiments.io import replacing
from experiments.models import make_classifier
from experiments.optim.layer_decay import LayerDecay
from experiments.training.classification_loss import balanced_class_weights, cross_entropy
from experiments.training.evaluating import evenly_spaced
from experiments.training.final_classifiers import evaluate_and_save
from experiments.training.job import prepare_job, run_job
from experiments.training.omission import going_on_without
from experiments.training.task import run_task
from experiments.training.validation import Validation
from experiments.training.workdir import SUMMARY, write_json


def run(config, workdir, resume="auto", say=print):
    """Fine-tunes a classifier, or goes on with it.

    Args:
        config: a `Config`; its field `pretrained` names what the encoder starts from.
        workdir: path or URL of the folder that the run leaves its results in.
        resume: `auto` goes on with a run that is in the workdir, `never` refuses one, `anyway` goes on with one even of
            another configuration.
        say: function that takes a line for the user.

    Returns:
        The content of `summary.json`, a dictionary; of several workers the chief's alone, None on the others.

    Raises:
        UserError, RunError, Interrupted: see `experiments.errors`.
    """
    return run_task(config, "finetune", workdir, resume, say, functools.partial(_finetune, config))


def _finetune(config, workdir, workers, say):
    training = config.finetune
    source = open_source(config.data)
    if not source.num_classes:
        raise UserError(f"{source.name} has no labels to fine-tune on.")
    split = label_subset(source.split("train"), training.labels, source.num_classes, config.seed)
    weights = None
    if training.class_weights == "balanced":
        weights = balanced_class_weights(split.labels, source.class_names)
    job = prepare_job(
        config,
        training,
        workdir,
        workers,
        source,
        split,
        lambda dtype: make_classifier(config, source.num_classes, dtype),
        say,
        LayerDecay(config.model.stages[0], training.layer_decay, training.layer_decay_groups),
        training.ema_decay,
    )
    model = job.model

    mixing = Mixing.of(training, source.num_classes)
    callbacks, validation = [_draw_at_begin(job, mixing)], None
    if held_out := source.get("validation"):
        top_one = TopOne(model, held_out, job.preparation, job.evaluation_batch_size)
        validation = Validation(job, top_one, evenly_spaced(training.evaluations, job.plan))
        callbacks.append(validation)

    seconds = run_job(job, model, cross_entropy(model, weights, training.frozen_encoder), callbacks, mixing=mixing)
    if not workers.is_chief:
        return workers.wait_for_summary(workdir)
    summary = {
        "task": "finetune",
        "steps": job.plan.total_steps,
        "images": split.num_examples,
        "classes": list(source.class_names),
        "pretrained": config.pretrained,
        "seconds": round(seconds, 1),
        **evaluate_and_save(job, validation),
    }
    write_json(workdir / SUMMARY, summary)
    return summary


def _draw_at_begin(job, mixing):
    """Returns the callback that draws `augmentation.png` when a run begins."""
    path = job.workdir / "augmentation.png"

    def draw(logs):
        seed = job.config.seed
        if path.exists() or not (examples := augmented_examples(job.split, job.preparation, seed)):
            return
        with going_on_without(path):
            with replacing(path) as temporary:
                draw_augmentation(temporary, examples, job.preparation, mixing, job.source.class_names, seed)
            job.tracker.picture(0, "augmentation", path)

    return keras.callbacks.LambdaCallback(on_train_begin=draw)
