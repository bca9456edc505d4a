"""The losses of fine-tuning: cross-entropy, of the whole model or of the head on a frozen encoder."""

import numpy as np
from keras import ops

from experiments.errors import UserError


def cross_entropy(model, class_weights=None, frozen_encoder=False, multi_label=False):
    """Returns the function from a batch to the loss of each example, `(B,)`.

    With class weights the loss of an example is `-sum_c weight_c * target_c * log(share_c)`, as PyTorch's
    `CrossEntropyLoss` has it for soft targets: an example counts by the weight of its class, a mixture of two by those
    of both, and what smoothing spreads over other classes by theirs. The loss of a batch stays its mean over the
    examples, whatever their weights, so it is the same on any number of devices.

    With `multi_label` it is the mean over the classes of the binary cross-entropy of each, of a sigmoid. Its class
    weights are two for each class, of the target and of its complement.

    Args:
        model: a `ConvNeXt` with head.
        class_weights: `(num_classes,)`, with `multi_label` `(2, num_classes)` for images without and with the class; or
            None.
        frozen_encoder: whether the encoder is in inference mode, and no gradient goes through it.
        multi_label: whether each class has a sigmoid of its own, instead of a softmax for all.
    """

    def logits_of(images):
        if not frozen_encoder:
            return model(images, training=True)
        features = ops.stop_gradient(model.extract_features(images, training=False)[-1])
        return model.classify(features, training=True)

    def softmax_losses(batch):
        logits = logits_of(batch["images"])
        if class_weights is None:
            return ops.categorical_crossentropy(batch["targets"], logits, from_logits=True)
        weights = ops.convert_to_tensor(class_weights, "float32")
        # Weighted targets do not sum to 1, which `categorical_crossentropy` relies on in its gradient.
        return -ops.sum(weights * batch["targets"] * ops.log_softmax(logits, axis=-1), axis=-1)

    def sigmoid_losses(batch):
        logits, targets = logits_of(batch["images"]), batch["targets"]
        without, having = (1.0, 1.0) if class_weights is None else class_weights
        losses = having * targets * ops.softplus(-logits) + without * (1.0 - targets) * ops.softplus(logits)
        return ops.mean(losses, axis=-1)

    return sigmoid_losses if multi_label else softmax_losses


def balanced_class_weights(labels, class_names, label_sets=None):
    """Returns a weight for each class, so that all classes weigh the same and the mean over the examples is 1.

    They are those of scikit-learn's `balanced`: `examples / (classes * examples of the class)`; with `label_sets`, of
    each class those of the two kinds of images, without and with it.

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
        counts, needed, missing = np.bincount(labels, minlength=len(class_names)), "of", "none"
        smallest = counts
    else:
        having = np.count_nonzero(label_sets[labels], axis=0)
        counts, needed, missing = np.stack([len(labels) - having, having]), "with and without", "not both"
        smallest = counts.min(axis=0)
    if empty := [name for name, count in zip(class_names, smallest) if not count]:
        shown = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise UserError(
            f"finetune.class_weights=balanced needs training images {needed} every class, and there are {missing} of "
            f"{shown}: add --config.finetune.class_weights=none."
        )
    return (len(labels) / (len(counts) * counts)).astype("float32")
