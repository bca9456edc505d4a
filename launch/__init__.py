"""The commands, `python -m launch.NAME`: flags, exit codes and messages; the work is done in `experiments`."""

import importlib.util
import sys


def require_packages(*names: str) -> None:
    """Ends the process with one line if packages of the commands are missing, as with the library alone."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        line = f"error: {', '.join(missing)}: not installed; the commands need pip install 'fcmae[train]'"
        print(line, file=sys.stderr)
        sys.exit(2)


require_packages("absl", "ml_collections")
