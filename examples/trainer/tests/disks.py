"""Disks that cannot be written to, whoever runs the tests: root, root in a container, or nobody in particular."""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NEW_NAMESPACE, _NEW_USER = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
_READ_ONLY, _REMOUNT, _PRIVATE, _RECURSIVE = 0x1, 0x20, 0x40000, 0x4000  # MS_RDONLY, MS_REMOUNT, MS_PRIVATE, MS_REC
_NOBODY = 65534


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The kernel writes no file beyond so many bytes for this process. It says EFBIG: "File too large"."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def unwritable(directory: Path) -> Iterator[None]:
    """A directory that this process may not write to. Root may write to all: it is somebody else meanwhile."""
    mode = directory.stat().st_mode
    directory.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        directory.chmod(mode)


def mount_memory(directory: Path, size: int) -> None:
    """Mount a disk of so many bytes of memory, which only this process sees.

    Raises:
        OSError: the system does not let this user. Nothing has changed then.
    """
    user, group = os.getuid(), os.getgid()
    _call("unshare", _NEW_NAMESPACE | (_NEW_USER if user else 0))
    if user:  # become root, of nothing but this
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
    _call("mount", b"memory", bytes(directory), b"tmpfs", 0, f"size={size}".encode())


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """A disk that is full, but for a few pages."""
    with (disk / "filling").open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - 5 * 4096)
    try:
        yield
    finally:
        (disk / "filling").unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """A disk that `mount_memory` has mounted, and that cannot be written to."""
    _call("mount", None, bytes(disk), None, _REMOUNT | _READ_ONLY, None)
    try:
        yield
    finally:
        _call("mount", None, bytes(disk), None, _REMOUNT, None)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
