"""Settings that must be made before TensorFlow is imported or touches a device, or files are read."""

import atexit
import gc
import itertools
import os
import shutil
import tempfile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Threads of PyTorch, scikit-learn and NumPy: on cores that two processes share, they spin until all get their turn.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # records of folders are not the user's

import tensorflow as tf

from tests.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401

atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# Four devices, so that runs over one, over two and over four of them fit in one process.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)
# As in TensorFlow's own tests: the collective operations of two devices and of four do not share their keys.
KEYS = itertools.count(step=100_000)
tf.distribute.MirroredStrategy._collective_key_base = property(lambda _: next(KEYS))

# Files that take longest, or longest for their number of tests.
LONG = [
    *("test_workers.py", "launch/test_commands.py", "test_backends.py", "test_in_jax.py", "benchmarks/test_step.py"),
    *("test_docs.py", "test_soak.py", "test_notebooks.py", "launch/test_", "test_sweep.py", "test_demo.py"),
]


def pytest_collection_modifyitems(items):
    """Puts long files first: at the end one process would work on them alone."""
    items.sort(key=lambda item: next((i for i, part in enumerate(LONG) if part in str(item.path)), len(LONG)))


def pytest_collection_finish():
    """Makes collections of garbage rare and short: they take a tenth of the time of tracing."""
    gc.freeze()  # a million objects of modules
    gc.set_threshold(20_000)
