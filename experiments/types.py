"""Type aliases for annotations: paths, lines for the user, batches and metrics."""

import pathlib
from collections.abc import Callable
from typing import Any

# A local path, or for a URL an `etils.epath.Path`, which has the same methods; see `io.as_path`.
Path = pathlib.Path
# Takes a line for the user, as `print` does.
Log = Callable[[str], None]
# The tensors of a batch by name, such as `images` (B, H, W, C) float32, `labels` (B,) and `weights` (B,).
Batch = dict[str, Any]
# Figures by name: numbers, or scalar tensors while they are on the device; in a summary also texts and lists.
Metrics = dict[str, Any]
