"""Fine-tuning: a classifier learns from labelled images, on top of a pretrained encoder or from scratch."""

import keras

from experiments.data.augmentation.mixing import Mixing
from experiments.data.picture import augmented_examples, draw_augmentation
from experiments.data.sources import open_source
from experiments.data.subset import label_subset
from experiments.errors import UserError
from experiments.evaluation.classification import TopOne
from experiments.models import make_classifier
from experiments.training.checkpoints import check_pretrained
from experiments.training.evaluating import Evaluate, evenly_spaced
from experiments.training.job import prepare_job, run_job, save_model
from experiments.training.workdir import SUMMARY, check_workdir, finished_summary, replacing, write_json


def run(config, workdir, resume="auto", say=print):
    """Fine-tunes a classifier, or goes on with it.

    Args:
        config: a `Config`; its field `pretrained` names what the encoder starts from.
        workdir: path of the folder that the run leaves its results in.
        resume: `auto` goes on with a run that is in the workdir, `never` refuses one.
        say: function that takes a line for the user.

    Returns:
        The content of `summary.json`, a dictionary.

    Raises:
        UserError, RunError, Interrupted: see `experiments.errors`.
    """
    training = config.finetune
    workdir = check_workdir(workdir, config, "finetune", resume)
    if summary := finished_summary(workdir):
        say(f"The run in {workdir} is complete.")
        return summary
    check_pretrained(config.pretrained, workdir)
    source = open_source(config.data)
    if not source.num_classes:
        raise UserError(f"{source.name} has no labels to fine-tune on.")
    split = label_subset(source.split("train"), training.labels, source.num_classes, config.seed)
    job = prepare_job(
        config,
        training,
        workdir,
        source,
        split,
        lambda dtype: make_classifier(config, source.num_classes, dtype),
        say,
    )
    model = job.model

    mixing = Mixing.of(training, source.num_classes)
    callbacks = [_draw_at_begin(job, mixing)]
    if held_out := source.get("validation"):
        evaluate = TopOne(model, held_out, job.preparation, training.batch_size)
        validation = Evaluate("validation_top1", evaluate, job.tracker, evenly_spaced(training.evaluations, job.plan))
        callbacks.append(validation)

    seconds = run_job(job, model, _cross_entropy(model), callbacks, mixing=mixing)
    save_model(model, workdir / "classifier.keras")
    summary = {
        "task": "finetune",
        "steps": job.plan.total_steps,
        "images": split.num_examples,
        "classes": list(source.class_names),
        "pretrained": config.pretrained,
        "seconds": round(seconds, 1),
    }
    if held_out:
        summary["validation_top1"] = validation.final()
    if test := source.get("test"):
        summary["test_top1"] = TopOne(model, test, job.preparation, training.batch_size)()
    write_json(workdir / SUMMARY, summary)
    return summary


def _cross_entropy(model):
    """Returns the function from a batch to the loss of each example, `(B,)`."""

    def example_losses(batch):
        logits = model(batch["images"], training=True)
        return keras.ops.categorical_crossentropy(batch["targets"], logits, from_logits=True)

    return example_losses


def _draw_at_begin(job, mixing):
    """Returns the callback that draws `augmentation.png` when a run begins."""
    path = job.workdir / "augmentation.png"

    def draw(logs):
        seed = job.config.seed
        if path.exists() or not (examples := augmented_examples(job.split, job.preparation, seed)):
            return
        with replacing(path) as temporary:
            draw_augmentation(temporary, examples, job.preparation, mixing, job.source.class_names, seed)
        job.tracker.picture(0, "augmentation", path)

    return keras.callbacks.LambdaCallback(on_train_begin=draw)
