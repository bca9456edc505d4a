"""Settings that TensorFlow reads when it is imported: import this module before anything else."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
# oneDNN doubles the speed of depthwise convolutions on CPUs for which TensorFlow leaves it off.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Notices of TensorFlow's C++ parts would bury the lines that are for the user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
