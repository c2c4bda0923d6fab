"""Footprints kept as JSON lines: appended, never rewritten."""

import json
import os
from typing import IO

from memcalc.errors import BadFile
from memcalc.footprint import Footprint


class Store:
    """A file of footprints, one a line. Opened at once, so that a run does not end in a file that cannot be written.

    Raises BadFile.
    """

    def __init__(self, path: str) -> None:
        try:
            self._file: IO[str] = open(path, "a", encoding="utf-8")  # noqa: SIM115 - it lives as long as the store
        except OSError as error:
            raise BadFile(path, f"cannot be written: {error.strerror}") from None

    def append(self, footprint: Footprint) -> None:
        """Write one line and see it onto the disk: the next case may take the machine down."""
        self._file.write(json.dumps(footprint.to_json()) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
