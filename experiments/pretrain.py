"""Pretraining: a masked autoencoder learns from unlabelled images."""

import os
from collections.abc import Callable
from typing import Any

import keras

from convnext.backbone import ConvNeXt
from convnext.types import Tensor
from experiments.config import Config, PretrainConfig
from experiments.data.pipeline import evaluation_batches
from experiments.data.source import MemorySplit, Split
from experiments.data.sources import open_source
from experiments.data.splits import at_most, evenly_spread
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import effective_rank, feature_std
from experiments.evaluation.reconstruction import ReconstructionLoss
from experiments.models import make_fcmae
from experiments.training.callbacks import Measure, evenly_spaced
from experiments.training.pictures import Reconstructions
from experiments.training.probing import check_probing, probing_callbacks
from experiments.training.run import Run, Task, run_task
from experiments.types import Batch, Log, Metrics
from fcmae import FCMAE
from fcmae.masking import sample_visible

IMAGES_IN_PICTURE = 8
FEATURE_IMAGES = 2048  # by which the rank of the features is measured


def run(
    config: Config, workdir: str | os.PathLike[str], resume: str = "auto", log: Log = print
) -> dict[str, Any] | None:
    """Pretrains an encoder, or resumes the run in the workdir; arguments, result and errors are those of `run_task`."""
    return run_task(Pretraining, config, workdir, resume, log)


class Pretraining(Task):
    """Pretraining by masked autoencoding, with the images of the split `pretrain` or, without one, `train`."""

    name = "pretrain"
    training: PretrainConfig

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.source = open_source(config.data)
        self.split = self.source.get("pretrain") or self.source.split("train")
        check_probing(self.training, self.source)

    def make_model(self, dtype: str) -> FCMAE:
        return make_fcmae(self.config, dtype)

    def encoder(self, model: FCMAE) -> ConvNeXt:
        return model.backbone

    def num_patches(self, model: FCMAE) -> int:
        return model.num_patches

    def example_losses(self, model: FCMAE) -> Callable[[Batch], Tensor]:
        def image_losses(batch: Batch) -> Tensor:
            visible = sample_visible(batch["noise"], model.mask_ratio)
            return model.image_losses(batch["images"], visible, training=True, valid=batch.get("valid"))

        return image_losses

    def callbacks(self, run: Run) -> list[keras.callbacks.Callback]:
        training = self.training
        held_out = self.source.get("validation")
        pictures = [self._reconstructions(run, held_out or self.split)] if training.pictures else []
        self._measures = []  # of which the summary holds the last figures
        if held_out:
            at_steps = evenly_spaced(training.evaluations, run.schedule)
            self._measures.append(Measure(self._validation(run, held_out), run, at_steps))
        if training.probe_every:
            self._measures += probing_callbacks(run, run.model.backbone)
        return [*pictures, *self._measures]

    def finish(self, run: Run) -> dict[str, Any]:
        run.save(run.model, "fcmae.keras")
        run.save(run.model.backbone, "encoder.keras")
        results = {"encoder_parameters": run.model.backbone.count_params()}
        for measure in run.shared(self._measures):
            results |= measure.final()
        return results

    def _validation(self, run: Run, held_out: Split) -> Callable[[int], Metrics]:
        """Returns the function that measures, without labels, how well and what the model learns."""
        batch_size, seed = run.evaluation_batch_size, self.config.seed
        loss = ReconstructionLoss(run.model, held_out, run.preprocessing, batch_size, seed, run.devices)
        features_of = PooledFeatures(run.model.backbone, run.preprocessing, batch_size, run.devices)
        some = at_most(held_out, FEATURE_IMAGES, seed)

        def measure(step: int) -> Metrics:
            features, _ = features_of(some, labelled=False)
            if not len(features):
                run.log("validation: no image can be read, so nothing is measured")
                return {}
            return {
                "validation_loss": float(loss()),
                "feature_rank": effective_rank(features),
                "feature_std": feature_std(features),
            }

        return measure

    def _reconstructions(self, run: Run, split: Split) -> Reconstructions:
        """Returns the callback that draws some images of a split, always under the same masks."""
        count, model = min(IMAGES_IN_PICTURE, split.num_examples), run.model
        if isinstance(split, MemorySplit):  # of a stream, the first ones; others would be far
            split = evenly_spread(split, count)
        examples = evaluation_batches(
            split, run.preprocessing, count, num_patches=model.num_patches, seed=self.config.seed
        )
        batch = next(iter(examples))
        visible = sample_visible(batch["noise"], model.mask_ratio)
        at_steps = evenly_spaced(self.training.pictures, run.schedule)
        return Reconstructions(run, (batch["images"], visible, batch.get("valid")), at_steps)
