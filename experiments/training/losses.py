"""The losses of fine-tuning: cross-entropy, for the whole model or only the head on a frozen encoder, and Dice."""

from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

from convnext.backbone import ConvNeXt
from convnext.segmentation import Segmenter
from convnext.types import Tensor
from experiments.errors import UserError
from experiments.types import Batch


def cross_entropy(
    model: ConvNeXt, class_weights: np.ndarray | None = None, frozen_encoder: bool = False, multi_label: bool = False
) -> Callable[[Batch], Tensor]:
    """Returns the function from a batch to the loss of each example, `(B,)`.

    With class weights the loss of an example is `-sum_c weight_c * target_c * log(share_c)`, as in PyTorch's
    `CrossEntropyLoss` for soft targets: each class contributes with its own weight to the targets of a mixed or
    smoothed example. The loss of a batch is still the mean over its examples, not divided by their weights, so it is
    the same on any number of devices.

    With `multi_label` it is the binary cross-entropy of the sigmoids, averaged over the classes. There are two class
    weights for each class, for images without and with it.

    Args:
        model: a `ConvNeXt` with head.
        class_weights: `(num_classes,)`, with `multi_label` `(2, num_classes)` for images without and with the class; or
            None.
        frozen_encoder: whether the encoder is in inference mode, and no gradient goes through it.
        multi_label: whether each class has its own sigmoid, instead of a softmax over all.
    """

    def logits_of(images: Tensor) -> Tensor:
        if not frozen_encoder:
            return model(images, training=True)
        features = ops.stop_gradient(model.extract_features(images, training=False)[-1])
        return model.classify(features, training=True)

    def softmax_losses(batch: Batch) -> Tensor:
        logits = logits_of(batch["images"])
        if class_weights is None:
            return ops.categorical_crossentropy(batch["targets"], logits, from_logits=True)
        weights = ops.convert_to_tensor(class_weights, "float32")
        # Weighted targets do not sum to 1, which `categorical_crossentropy` relies on in its gradient.
        return -ops.sum(weights * batch["targets"] * ops.log_softmax(logits, axis=-1), axis=-1)

    def sigmoid_losses(batch: Batch) -> Tensor:
        logits, targets = logits_of(batch["images"]), batch["targets"]
        without, having = (1.0, 1.0) if class_weights is None else class_weights
        losses = having * targets * ops.softplus(-logits) + without * (1.0 - targets) * ops.softplus(logits)
        return ops.mean(losses, axis=-1)

    return sigmoid_losses if multi_label else softmax_losses


def pixel_losses(
    model: Segmenter,
    class_weights: np.ndarray | None = None,
    dice_weight: float = 0.0,
    auxiliary_weight: float = 0.0,
    frozen_encoder: bool = False,
) -> Callable[[Batch], Tensor]:
    """Returns the function from a batch to the loss of each image of a segmentation, `(B,)`.

    It is the mean of the cross-entropy over the pixels that count, those whose label is a class; predictions for other
    pixels have no effect. With class weights the cross-entropy of a pixel is multiplied by that of its class. An image
    without such pixels has the loss 0.

    Args:
        model: a `Segmenter`.
        class_weights: `(num_classes,)`, or None.
        dice_weight: weight of the Dice loss, see `dice_losses`; 0 for none.
        auxiliary_weight: weight of the cross-entropy of the auxiliary head; 0 for none.
        frozen_encoder: whether the encoder is in inference mode, and no gradient goes through it.
    """

    def losses(batch: Batch) -> Tensor:
        labels = batch["labels"]
        logits, auxiliary = model.call_with_auxiliary(batch["images"], training=True, frozen_encoder=frozen_encoder)
        total = mean_cross_entropy(logits, labels, class_weights)
        if auxiliary_weight:
            total = total + auxiliary_weight * mean_cross_entropy(auxiliary, labels, class_weights)
        return total + dice_weight * dice_losses(logits, labels) if dice_weight else total

    return losses


def mean_cross_entropy(logits: Tensor, labels: Tensor, class_weights: np.ndarray | None = None) -> Tensor:
    """Returns the mean cross-entropy over the pixels of each image that count, `(B,)` float32.

    Args:
        logits: `(B, H, W, num_classes)`.
        labels: `(B, H, W)` integers; negative ones do not count.
        class_weights: `(num_classes,)`, or None.
    """
    counts = labels >= 0
    classes = ops.where(counts, labels, 0)
    # The logits of pixels that do not count are masked before anything is computed from them.
    logits = ops.where(counts[..., None], ops.cast(logits, "float32"), 0.0)
    losses = ops.sparse_categorical_crossentropy(classes, logits, from_logits=True)
    weights = ops.cast(counts, "float32")
    number = ops.maximum(ops.sum(weights, axis=(1, 2)), 1.0)
    if class_weights is not None:
        weights = weights * ops.take(ops.convert_to_tensor(class_weights, "float32"), classes)
    return ops.sum(losses * weights, axis=(1, 2)) / number


def dice_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns `1 - Dice` of each image, the mean over the classes that it has, `(B,)` float32.

    The Dice coefficient of a class is `(2 sum(p y) + 1) / (sum(p) + sum(y) + 1)` over the pixels that count, where p is
    the softmax probability and y is 1 for pixels of the class, else 0. Arguments are those of `mean_cross_entropy`.
    """
    counts = labels >= 0
    logits = ops.where(counts[..., None], ops.cast(logits, "float32"), 0.0)
    truth = ops.one_hot(labels, logits.shape[-1], dtype="float32")  # of negative labels zeros
    shares = ops.softmax(logits, axis=-1) * ops.cast(counts, "float32")[..., None]
    both, size = (ops.sum(values, axis=(1, 2)) for values in (truth * shares, truth))
    dice = (2.0 * both + 1.0) / (ops.sum(shares, axis=(1, 2)) + size + 1.0)
    present = ops.cast(size > 0, "float32")
    return ops.sum((1.0 - dice) * present, axis=-1) / ops.maximum(ops.sum(present, axis=-1), 1.0)


def balanced_class_weights(
    labels: np.ndarray, class_names: Sequence[str], label_sets: np.ndarray | None = None
) -> np.ndarray:
    """Returns a weight for each class: equal total weight for all classes, and a mean of 1 over the examples.

    They are those of scikit-learn's `balanced`: `examples / (classes * examples of the class)`; with `label_sets`, for
    each class the weights of the images without and with it.

    Args:
        labels: `(N,)` integers; negative ones, of images without a label, do not count.
        class_names: names of the classes.
        label_sets: see `Source`.

    Returns:
        `(num_classes,)` float32; with `label_sets` `(2, num_classes)`.

    Raises:
        UserError: if a class has no examples, or with `label_sets` if it has all of them.
    """
    labels = labels[labels >= 0]
    if label_sets is None:
        counts, needed = np.bincount(labels, minlength=len(class_names)), "of every class, and there are none of"
        smallest = counts
    else:
        having = np.count_nonzero(label_sets[labels], axis=0)
        counts = np.stack([len(labels) - having, having])
        needed = "with and without every class, but all or none have"
        smallest = counts.min(axis=0)
    _check_none_empty(class_names, smallest, f"images {needed}")
    return (len(labels) / (len(counts) * counts)).astype("float32")


def weights_of_counts(counts: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Returns the same weights, `(num_classes,)` float32, of the number of pixels of each class."""
    _check_none_empty(class_names, counts, "pixels of every class, and there are none of")
    return (counts.sum() / (len(counts) * counts)).astype("float32")


def _check_none_empty(class_names: Sequence[str], counts: np.ndarray, needed: str) -> None:
    if empty := [name for name, count in zip(class_names, counts) if not count]:
        shown = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise UserError(
            f"finetune.class_weights=balanced needs training {needed} {shown}: add "
            "--config.finetune.class_weights=none."
        )
