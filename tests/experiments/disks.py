"""Disks that fail: small ones that can be filled up."""

import contextlib
import os
import resource
import subprocess


class FullDisk:
    """A folder on a disk that can be full.

    Args:
        folder: its path.
        reason: what the system says when it is full.
        fill: function that fills the disk, but for so many bytes: `fill(room=0)`.
        free: function that makes room again.
    """

    def __init__(self, folder, reason, fill, free):
        self.folder = folder
        self.reason = reason
        self.fill = fill
        self.free = free


@contextlib.contextmanager
def mounted(folder, *options):
    """Context in which a small disk in memory lies at `folder`; gives whether this process may do that."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def full_disk(folder):
    """Gives a `FullDisk` at a folder: one of 16 MiB; where none can be mounted, a limit on the size of files."""
    folder.mkdir()
    with mounted(folder, "size=16m") as done:
        filler = folder / "filler"
        if done:
            yield FullDisk(folder, "No space left on device", lambda room=0: _fill(filler, room), filler.unlink)
        else:
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            try:
                fill, free = (lambda room=0: _limit(room, limits)), (lambda: _limit(limits[0], limits))
                yield FullDisk(folder, "File too large", fill, free)
            finally:
                _limit(limits[0], limits)


def _fill(path, room):
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(os.urandom(size))
        file.truncate(file.tell() - room)


def _limit(size, limits):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
