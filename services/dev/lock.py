"""One `playhead dev` per data directory: an flock(2) that the kernel releases however the holder ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from services.dev.processes import FILE_MODE_PRIVATE, DevError

# Owner everything, others may pass through: Postgres of a root-run stack is another user and lives below.
DATA_DIR_MODE = 0o711
PID_BYTES_MAX = 32  # a pid in decimal and a newline


class DataDirLock:
    """Hold `<data_dir>/lock` while the block runs; creates the directory.

    The file stays behind, unlocked: removing it would let two holders lock two files of the same name.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "lock"
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Take the lock, or raise a `DevError` that names the pid of the holder."""
        try:
            self.path.parent.mkdir(mode=DATA_DIR_MODE, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, FILE_MODE_PRIVATE)
        except OSError as error:
            raise DevError(f"the data directory {self.path.parent} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, PID_BYTES_MAX, 0).decode("ascii", errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DevError(
                f"another `playhead dev` (pid {holder}) uses {self.path.parent}: stop it, or choose another with --data-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1
