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
# Figures by name, as they are logged and written to the summary.
Metrics = dict[str, Any]
