"""trace: the real step on the meta device, every storage's birth and death written into a Timeline."""

import memcalc.realize  # noqa: F401  in one line where there is no torch
