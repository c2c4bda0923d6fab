"""Footprints kept as JSON lines: appended, never rewritten; a line that a kill has torn is taken away."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

from memcalc.errors import BadFile
from memcalc.footprint import Footprint

locking: Any
try:
    import fcntl as locking
except ImportError:  # Windows
    locking = None

_STEP = 2**16


class Store:
    """A file of footprints, one a line. Opened at once, so that a run does not end in a file that cannot be written.

    Several processes may append to one file. Raises BadFile.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - it lives as long as the store
        except OSError as error:
            raise BadFile(path, f"cannot be written: {error.strerror}") from None

    def append(self, footprint: Footprint) -> None:
        """Write one line and see it onto the disk: the next case may take the machine down."""
        line = json.dumps(footprint.to_json()).encode() + b"\n"
        with self._alone():
            self._mend()
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())

    def mend(self) -> int:
        """Take away what a killed process has left of its last line; how many bytes that was."""
        with self._alone():
            return self._mend()

    def footprints(self) -> Iterator[tuple[int, Footprint | BadFile]]:
        """Each line's number, and its footprint, or why it is none."""
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _read(line, self.path, number)

    def close(self) -> None:
        self._file.close()

    def _mend(self) -> int:
        end = size = os.fstat(self._file.fileno()).st_size
        while end:  # back to the last end of a line
            start = max(end - _STEP, 0)
            self._file.seek(start)
            last = self._file.read(end - start)
            if b"\n" in last:
                end = start + last.rindex(b"\n") + 1
                break
            end = start
        torn = size - end
        if torn:
            self._file.seek(end)
            if isinstance(_read(self._file.read(torn), self.path, 0), Footprint):  # whole but for its end
                self._file.write(b"\n")
                return 0
            self._file.truncate(end)
        return torn

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if locking is None:
            yield
            return
        locking.flock(self._file, locking.LOCK_EX)
        try:
            yield
        finally:
            locking.flock(self._file, locking.LOCK_UN)


def _read(line: bytes, path: str, number: int) -> Footprint | BadFile:
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError):
        return BadFile(path, "not JSON", number)
    try:
        return Footprint.from_json(data, f"{path}:{number}")
    except BadFile as error:
        return error
