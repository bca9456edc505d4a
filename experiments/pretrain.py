"""Pretraining: a masked autoencoder learns from unlabelled images."""

import functools

from experiments.data.pipeline import evaluation_batches
from experiments.data.sources import open_source
from experiments.evaluation.reconstruction import ReconstructionLoss
from experiments.models import make_fcmae
from experiments.training.evaluating import Evaluate, evenly_spaced
from experiments.training.job import prepare_job, run_job
from experiments.training.pictures import Reconstructions
from experiments.training.probing import check_probing, probing_callbacks
from experiments.training.task import run_task
from experiments.training.workdir import SUMMARY, save_model, write_json
from fcmae.masking import sample_visible

IMAGES_IN_PICTURE = 8


def run(config, workdir, resume="auto", say=print):
    """Pretrains an encoder, or goes on with it.

    Args:
        config: a `Config`.
        workdir: path or URL of the folder that the run leaves its results in.
        resume: `auto` goes on with a run that is in the workdir, `never` refuses one, `anyway` goes on with one even of
            another configuration.
        say: function that takes a line for the user.

    Returns:
        The content of `summary.json`, a dictionary; of several workers the chief's alone, None on the others.

    Raises:
        UserError, RunError, Interrupted: see `experiments.errors`.
    """
    return run_task(config, "pretrain", workdir, resume, say, functools.partial(_pretrain, config))


def _pretrain(config, workdir, workers, say):
    training = config.pretrain
    source = open_source(config.data)
    split = source.get("pretrain") or source.split("train")
    check_probing(training, source)
    job = prepare_job(config, training, workdir, workers, source, split, lambda dtype: make_fcmae(config, dtype), say)
    model = job.model
    held_out = source.get("validation")
    callbacks = [
        Reconstructions(
            model,
            _picture_batch(model, held_out or split, job.preparation, config.seed),
            job.evaluation_batch_size,
            config.data,
            workdir,
            job.tracker,
            evenly_spaced(training.pictures, job.plan),
        )
    ]
    if held_out:
        evaluate = ReconstructionLoss(model, held_out, job.preparation, job.evaluation_batch_size, config.seed)
        validation = Evaluate("validation_loss", evaluate, job.tracker, evenly_spaced(training.evaluations, job.plan))
        callbacks.append(validation)
    probing = probing_callbacks(job, model.backbone) if training.probe_every else []
    callbacks += probing

    seconds = run_job(job, model.backbone, _image_losses(model), callbacks, num_patches=model.num_patches)
    if not workers.is_chief:
        return workers.wait_for_summary(workdir)
    save_model(model, workdir / "fcmae.keras")
    save_model(model.backbone, workdir / "encoder.keras")
    summary = {
        "task": "pretrain",
        "steps": job.plan.total_steps,
        "images": split.num_examples,
        "encoder_parameters": model.backbone.count_params(),
        "seconds": round(seconds, 1),
    }
    if held_out:
        summary["validation_loss"] = validation.final()
    for callback in probing:
        summary |= callback.final()
    write_json(workdir / SUMMARY, summary)
    return summary


def _image_losses(model):
    """Returns the function from a batch to the loss of each image, `(B,)`."""

    def image_losses(batch):
        visible = sample_visible(batch["noise"], model.mask_ratio)
        return model.image_losses(batch["images"], visible, training=True)

    return image_losses


def _picture_batch(model, split, preparation, seed):
    """Returns the images that every picture of a run shows, under the masks of the validation loss."""
    count = min(IMAGES_IN_PICTURE, split.num_examples)
    batch = next(iter(evaluation_batches(split, preparation, count, num_patches=model.num_patches, seed=seed)))
    return batch["images"], sample_visible(batch["noise"], model.mask_ratio)
