"""The commands, `python -m launch.NAME`: flags, exit codes and messages; the work is done in `experiments`."""

import importlib.util
import sys

_missing = [name for name in ("absl", "ml_collections", "tensorflow") if importlib.util.find_spec(name) is None]
if _missing:  # the library is installed without what the commands need
    print(f"error: {', '.join(_missing)}: not installed; the commands need pip install 'fcmae[train]'", file=sys.stderr)
    sys.exit(2)
