"""What the Keras contenders share on every backend: model, optimizer and loss of pretraining."""

import keras

from experiments.models import make_fcmae
from experiments.optim.adamw import make_adamw
from experiments.training.schedule import Schedule

BATCHES_PER_EPOCH = 100  # shapes the learning rate, which no step takes longer for


def make_model_and_optimizer(settings, ratio, execution):
    """Returns `(model, optimizer)` as pretraining makes them.

    Args:
        settings: `StepSettings`.
        ratio: one of their mask ratios.
        execution: `sparse` or `dense`.
    """
    config = settings.config(ratio, execution)
    keras.utils.set_random_seed(config.seed)
    model = make_fcmae(config, settings.policy)
    plan = Schedule.of(config.pretrain, BATCHES_PER_EPOCH * settings.batch_size)
    return model, make_adamw(model.trainable_variables, config.pretrain, plan)


def example_losses(model, images, visible):
    """Returns the loss of each image, `(B,)` float32, as pretraining computes it."""
    return model.image_losses(images, visible, training=True)
