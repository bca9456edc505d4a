"""Where a command writes what it makes: looked at before the work begins, and there in one piece or not at all."""

import contextlib
import os
import pathlib
import tempfile

from convnext.port.files import TEMPORARY
from experiments.errors import UserError
from experiments.paths import local_path


def new_output(name, suffixes=()):
    """Returns the path of a new file or folder, whose parent folders are made.

    Args:
        name: value of `--output`.
        suffixes: of which the name must have one; none for any name.

    Raises:
        UserError: if something is there already, it cannot be written, or it has another suffix.
    """
    path = local_path(name)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"--output={name}: name a {' or '.join(suffixes)} file.")
    try:
        if path.exists() or path.is_symlink():
            raise UserError(f"--output={name} exists already: name another one, or remove it.")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={name} cannot be written: {error.strerror or error}.") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"--output={name}: {path.parent} cannot be written to.")
    return path


@contextlib.contextmanager
def appearing(path):
    """Gives a temporary path of the same name, for a file or a folder, that becomes `path` once it is whole.

    If that fails, nothing is left of it.
    """
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=path.parent) as folder:
        temporary = pathlib.Path(folder, path.name)
        yield temporary
        os.replace(temporary, path)
