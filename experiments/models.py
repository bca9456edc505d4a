"""Makes the Keras models of a configuration."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import keras

from convnext.backbone import ConvNeXt
from convnext.factory import VERSIONS
from convnext.segmentation import Segmenter
from experiments.config import Config
from fcmae import FCMAE, StemMaskedFCMAE

AUTOENCODERS = {"every_layer": FCMAE, "after_stem": StemMaskedFCMAE}


@contextlib.contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Context in which the random weights of new models follow from a seed; draws outside of it are unaffected.

    Keras takes the seeds of its initializers from Python's own generator.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def make_encoder(config: Config, **overrides: Any) -> ConvNeXt:
    """Returns a new encoder without head.

    Args:
        config: a `Config`.
        **overrides: arguments of the model.
    """
    model, shape = config.model, (*config.data.size, config.data.channels)
    own = {"stem_stride": model.stem_stride, "activation": model.activation, "epsilon": model.epsilon}
    arguments = {"input_shape": shape, "include_top": False, **own, "name": "encoder", **overrides}
    encoder = VERSIONS[model.version](*model.stages, **arguments)
    if not model.response_normalization:
        for stage in encoder.stages:
            for block in stage.blocks:
                block.grn.trainable = False
    return encoder


def make_fcmae(config: Config, dtype: str | keras.DTypePolicy = "float32") -> FCMAE:
    """Returns a new masked autoencoder of a Keras dtype policy."""
    return AUTOENCODERS[config.pretrain.masking](
        make_encoder(config, dtype=dtype),
        mask_ratio=config.pretrain.mask_ratio,
        decoder_dim=config.model.decoder_dim,
        decoder_depth=config.model.decoder_depth,
        normalize_targets=config.pretrain.normalize_targets,
        execution=config.pretrain.execution,
        seed=config.seed,
        dtype=dtype,
        name="fcmae",
    )


def make_classifier(config: Config, num_classes: int, dtype: str | keras.DTypePolicy = "float32") -> ConvNeXt:
    """Returns a new classifier of `num_classes` classes and a Keras dtype policy.

    The initial weights of its logits are multiplied by `finetune.head_init_scale`. With `finetune.frozen_encoder` they
    are its only trainable ones.
    """
    classifier = make_encoder(
        config,
        include_top=True,
        num_classes=num_classes,
        drop_path_rate=config.finetune.drop_path_rate,
        dropout_rate=config.finetune.dropout_rate,
        dtype=dtype,
        name="classifier",
    )
    if config.finetune.head_init_scale != 1.0:
        for variable in classifier.head.weights:
            variable.assign(variable * config.finetune.head_init_scale)
    if config.finetune.frozen_encoder:
        layers: list[keras.layers.Layer] = [classifier.stem, *classifier.stages, classifier.head_norm]
        for layer in layers:
            layer.trainable = False
    return classifier


def make_segmenter(config: Config, num_classes: int, dtype: str | keras.DTypePolicy = "float32") -> Segmenter:
    """Returns a new segmentation model of `num_classes` classes and a Keras dtype policy.

    With `finetune.frozen_encoder` the encoder does not train.
    """
    encoder = make_encoder(config, drop_path_rate=config.finetune.drop_path_rate, dtype=dtype)
    encoder.trainable = not config.finetune.frozen_encoder
    return Segmenter(
        encoder,
        num_classes,
        config.segmentation.decoder,
        config.segmentation.decoder_dim,
        config.segmentation.dropout_rate,
        config.segmentation.auxiliary_weight > 0,
        dtype=dtype,
        name="segmenter",
    )


def make_random_encoder(config: Config, dtype: str | keras.DTypePolicy = "float32") -> ConvNeXt:
    """Returns the encoder as a pretraining run of this configuration initialises it."""
    with initial_weights(config.seed):
        return make_encoder(config, dtype=dtype)
