"""Settings that TensorFlow reads when it is imported: import this module before anything else."""

import os
import sys
import tempfile

from launch import require_packages

require_packages("tensorflow")
os.environ["KERAS_BACKEND"] = "tensorflow"
# oneDNN speeds up depthwise convolutions on CPUs for which TensorFlow leaves it off (docs/speed.md).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _import_quietly() -> None:
    """Imports TensorFlow without the notices that it prints at any log level; they are shown if the import fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow

            tensorflow.config.list_physical_devices("GPU")  # without a GPU it prints an error
        except BaseException:
            notices.seek(0)
            os.write(stderr, notices.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


_import_quietly()
