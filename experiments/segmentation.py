"""Segmentation: fine-tuning of a model that gives each pixel a class, `finetune.task=segmentation`."""

import itertools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from convnext.backbone import ConvNeXt
from convnext.segmentation import Segmenter
from convnext.types import Tensor
from experiments.data.segmentation_masks import CLASSES
from experiments.data.segmentation_pipeline import PairPreprocessing, evaluation_pairs, pixel_counts, training_pairs
from experiments.data.source import Split
from experiments.data.sources import open_source
from experiments.data.splits import evenly_spread, label_subset
from experiments.errors import UserError
from experiments.evaluation.class_reports import draw_confusion, write_class_report
from experiments.evaluation.segmentation import Confusions, notes_on_confusions, pixel_classes, segmentation_metrics
from experiments.finetune import Finetuning
from experiments.io import local_copy, replacing
from experiments.models import make_segmenter
from experiments.training.callbacks import evenly_spaced
from experiments.training.losses import pixel_losses, weights_of_counts
from experiments.training.pictures import MaskPictures
from experiments.training.run import Run
from experiments.training.workdir import CONFIG
from experiments.types import Batch, Metrics, Path

IMAGES_IN_PICTURE = 6


class Segmentation(Finetuning):
    """Fine-tuning of a segmentation model on images with masks.

    Its files are `segmenter.keras`, `segmenter_ema.keras` and `segmenter_best.keras`, as those of a classifier;
    `encoder.keras`, the encoder of the first of them; and `classes.txt`, the classes as `data.class_names` has them.
    The best weights are those of the highest mean IoU on the validation images. Images are evaluated at full size.
    """

    model_name = "segmenter"

    def _open_images(self) -> None:
        config, training = self.config, self.training
        self.source = open_source(config.data, masks=True)
        assert self.source.masks is not None  # which has been asked for
        self._masks = self.source.masks
        table = self._masks.table
        self.split = label_subset(self.source.split("train"), training.labels, len(table.names), config.seed, table)
        self._class_weights = None
        if training.class_weights == "balanced":
            self._class_weights = weights_of_counts(pixel_counts(self.split, self._masks), table.names)

    def make_model(self, dtype: str) -> Segmenter:
        return make_segmenter(self.config, self.source.num_classes, dtype)

    def encoder(self, model: Segmenter) -> ConvNeXt:
        return model.backbone

    def batches(self, run: Run, shard: int, num_shards: int) -> tf.data.Dataset:
        seed, size = self.config.seed, self.training.batch_size
        return training_pairs(
            self.split, self._masks, self._preprocessing, size, seed, run.start_step, shard, num_shards
        )

    def example_losses(self, model: Segmenter) -> Callable[[Batch], Tensor]:
        segmentation = self.config.segmentation
        return pixel_losses(
            model,
            self._class_weights,
            segmentation.dice_weight,
            segmentation.auxiliary_weight,
            self.training.frozen_encoder,
        )

    def callbacks(self, run: Run) -> list[keras.callbacks.Callback]:
        self._check_classes(run.workdir)
        write = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: self._write_classes(run.workdir))
        return [write, *super().callbacks(run)]

    def finish(self, run: Run) -> dict[str, Any]:
        run.save(run.model.backbone, "encoder.keras")
        return super().finish(run)

    def _check_classes(self, workdir: Path) -> None:
        """Raises UserError if the run in a workdir has begun with other classes, or with the same in another order."""
        path = workdir / CLASSES
        if not ((workdir / CONFIG).exists() and path.is_file()):
            return
        both = (text.splitlines() for text in (path.read_text(encoding="utf-8"), self._masks.table.to_text()))
        for before, now in itertools.zip_longest(*both, fillvalue="no class"):
            if before != now:
                origin = self.config.data.class_names or self.source.name
                raise UserError(
                    f"{path} has the classes that this run learns, but {origin} now has others ({now!r} instead of "
                    f"{before!r}): restore them, or use another --workdir."
                )

    def _write_classes(self, workdir: Path) -> None:
        with replacing(workdir / CLASSES) as path:
            path.write_text(self._masks.table.to_text(), encoding="utf-8")

    @property
    def _preprocessing(self) -> PairPreprocessing:
        return PairPreprocessing.of(self.config)

    @property
    def _facts(self) -> dict[str, Any]:
        return {"class_numbers": list(self._masks.table.numbers)}

    @property
    def _metric(self) -> str:
        return "mean_iou"

    def _metrics(self, *evaluated: Any) -> Metrics:
        return segmentation_metrics(*evaluated)

    def _load(self, model: Segmenter, path: Path) -> None:
        with local_copy(path) as local:
            model.load_weights(local)

    def _predictions(self, run: Run, split: Split) -> Confusions:
        return Confusions(run.model, self.config, split, self._masks, run.devices)

    def _report(self, run: Run, name: str, evaluated: tuple[Any, ...]) -> None:
        matrix, unreadable = evaluated
        names = self.source.class_names
        for note in notes_on_confusions(name, self.source.split(name).num_examples, matrix, unreadable):
            run.log(note)
        with replacing(run.workdir / f"report_{name}.csv") as path:
            write_class_report(path, matrix, names, "pixels")
        found = f"mean IoU {segmentation_metrics(matrix)['mean_iou']:.2f}%, share of each class in %"
        with replacing(run.workdir / f"confusion_{name}.png") as path:
            draw_confusion(path, matrix, names, f"{name} images of {self.source.name}: {found}", "pixels")

    def _pictures(self, run: Run) -> MaskPictures:
        split = self.source.get("validation") or self.split
        examples = evaluation_pairs(evenly_spread(split, IMAGES_IN_PICTURE), self._masks, self._preprocessing)
        at_steps = evenly_spaced(self.config.segmentation.pictures, run.schedule)
        return MaskPictures(run, pixel_classes(run.model, self.config), examples, self.source.class_names, at_steps)
