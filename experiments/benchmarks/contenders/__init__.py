"""The contenders of the benchmark of training steps: each makes its model and takes steps with it.

All have the same form, `Contender` of `experiments.benchmarks.contenders.form`; their frameworks are imported by
whoever makes one, never here.
"""

import importlib

from experiments.benchmarks.settings import PYTORCH


def contender_class(backend, execution):
    """Imports the framework of a contender, and no other, and returns the contender's class.

    Args:
        backend: of Keras, for the contenders that are Keras models.
        execution: one of `settings.CONTENDERS`.

    Returns:
        A `Contender`, to be made of `StepSettings`, one of their mask ratios, and the execution.
    """
    module, name = {
        "tensorflow": ("keras_tensorflow", "KerasTensorFlowContender"),
        "jax": ("keras_jax", "KerasJaxContender"),
        "torch": ("keras_torch", "KerasTorchContender"),
        PYTORCH: ("pytorch", "PyTorchContender"),
    }[PYTORCH if execution == PYTORCH else backend]
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
