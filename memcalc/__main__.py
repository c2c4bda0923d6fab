"""`python -m memcalc`, and the command `memcalc`."""

import atexit
import os
import sys
import threading
from typing import NoReturn

from memcalc.cli import main


def run() -> NoReturn:
    """Run the command line and leave.

    Where nobody waits for the interpreter's end, what is left is not freed object by object: that is a tenth of an
    estimate's time.
    """
    status = main()
    if threading.active_count() == 1 and not atexit._ncallbacks():  # noqa: SLF001 - nothing public tells
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
