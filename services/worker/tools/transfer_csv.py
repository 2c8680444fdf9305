"""CSV files as targets of transfers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_BLOCK_BYTES = 1 << 20


class CsvFile:
    """A CSV file being written: nothing is seen of it before `finish()`; `append` keeps what an old one has."""

    def __init__(self, path: Path, *, append: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._goes_on = append and path.exists() and path.stat().st_size > 0
        self._new = tempfile.NamedTemporaryFile(dir=path.parent, prefix=".transfer-", delete=False)  # noqa: SIM115

    @property
    def has_header(self) -> bool:
        """Whether the names of the columns are to be written first."""
        return not self._goes_on

    def write(self, text: bytes) -> None:
        """Add some text."""
        self._new.write(text)

    def finish(self) -> None:
        """Show the file under its name."""
        self._new.close()
        if self._goes_on:
            with self._path.open("ab") as whole, Path(self._new.name).open("rb") as new:
                for block in iter(lambda: new.read(_BLOCK_BYTES), b""):
                    whole.write(block)
        else:
            os.replace(self._new.name, self._path)  # noqa: PTH105 - the name of an open file

    def close(self) -> None:
        """Leave nothing behind of what was not finished."""
        self._new.close()
        Path(self._new.name).unlink(missing_ok=True)
