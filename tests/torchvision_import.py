"""Lets timm and Transformers be imported beside TensorFlow and beside any build of PyTorch.

Both import torchvision, which loads a compiled extension. It binds to one build of PyTorch: beside another one the
import fails with `operator torchvision::nms does not exist`. And what PyTorch's builds for CUDA load, this extension
and Triton, crashes a process that has loaded TensorFlow. ConvNeXt uses no operator of torchvision, so declaring the
two that it describes unasked is enough; a call of one fails.
"""

import importlib.util
import sys
import unittest.mock

UNASKED = ("nms", "qnms")


def import_without_extension():
    """Imports torchvision without its extension, if it and PyTorch are there; call it before timm or Transformers."""
    if "torchvision" in sys.modules or not all(map(importlib.util.find_spec, ("torch", "torchvision"))):
        return
    sys.modules.setdefault("triton", None)  # as if it were not installed
    import torch

    for name in UNASKED:
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    with unittest.mock.patch.object(torch.ops, "load_library", side_effect=OSError("not needed here")):
        import torchvision  # noqa: F401
