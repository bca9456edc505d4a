"""Lets timm and Transformers be imported beside a PyTorch that torchvision's compiled extension was not built for.

Both import torchvision, and torchvision needs its extension, which binds to one build of PyTorch: beside PyTorch for
the CPU the wheel of the package index, made for CUDA, fails with `operator torchvision::nms does not exist`. ConvNeXt
uses no operator of it, so declaring the two that torchvision describes unasked is enough; a call of one still fails.
"""

import contextlib
import importlib.util
import pathlib

UNASKED = ("nms", "qnms")


def declare_missing_operators():
    """Declares torchvision's operators where its extension cannot be loaded; call it before timm or Transformers.

    Where the extension loads, or one of the two packages is not installed, it changes nothing.
    """
    if not all(map(importlib.util.find_spec, ("torch", "torchvision"))):
        return
    import torch

    package = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent
    with contextlib.suppress(OSError):
        for extension in package.glob("_C.*"):
            torch.ops.load_library(extension)
    if not hasattr(torch.ops.torchvision, "nms"):
        for name in UNASKED:
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
