"""The loss of fine-tuning: cross-entropy, of the whole model or of the head on a frozen encoder."""

import numpy as np
from keras import ops

from experiments.errors import UserError


def cross_entropy(model, class_weights=None, frozen_encoder=False):
    """Returns the function from a batch to the loss of each example, `(B,)`.

    With class weights the loss of an example is `-sum_c weight_c * target_c * log(share_c)`, as PyTorch's
    `CrossEntropyLoss` has it for soft targets: an example counts by the weight of its class, a mixture of two by those
    of both, and what smoothing spreads over other classes by theirs. The loss of a batch stays its mean over the
    examples, whatever their weights, so it is the same on any number of devices.

    Args:
        model: a `ConvNeXt` with head.
        class_weights: `(num_classes,)`, or None.
        frozen_encoder: whether the encoder is in inference mode, and no gradient goes through it.
    """

    def example_losses(batch):
        if frozen_encoder:
            features = ops.stop_gradient(model.extract_features(batch["images"], training=False)[-1])
            logits = model.classify(features, training=True)
        else:
            logits = model(batch["images"], training=True)
        if class_weights is None:
            return ops.categorical_crossentropy(batch["targets"], logits, from_logits=True)
        # Weighted targets do not sum to 1, which `categorical_crossentropy` relies on in its gradient.
        weights = ops.convert_to_tensor(class_weights, "float32")
        return -ops.sum(weights * batch["targets"] * ops.log_softmax(logits, axis=-1), axis=-1)

    return example_losses


def balanced_class_weights(labels, class_names):
    """Returns a weight for each class, so that all classes weigh the same and the mean over the examples is 1.

    They are those of scikit-learn's `balanced`: `examples / (classes * examples of the class)`.

    Args:
        labels: `(N,)` integers; negative ones, of images without a label, do not count.
        class_names: names of the classes.

    Returns:
        `(num_classes,)` float32.

    Raises:
        UserError: if a class has no examples.
    """
    labels = labels[labels >= 0]
    counts = np.bincount(labels, minlength=len(class_names))
    empty = [name for name, count in zip(class_names, counts) if not count]
    if empty:
        shown = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise UserError(
            f"finetune.class_weights=balanced needs training images of every class, and there are none of {shown}: "
            "add --config.finetune.class_weights=none."
        )
    return (len(labels) / (len(counts) * counts)).astype("float32")
