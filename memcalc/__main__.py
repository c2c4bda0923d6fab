"""`python -m memcalc`: the same as the command `memcalc`."""

import sys

from memcalc.cli import main

sys.exit(main())
