"""The real thing on any device: transformers' model, peft's adapters, bitsandbytes' layers, the training loops.

trace runs it on the meta device under a recorder, profile on real ones; the code is the same.
"""

from memcalc.errors import MissingPackage, NotModelled

try:
    import torch  # noqa: F401  all of this floor stands on it
except ModuleNotFoundError:
    raise MissingPackage("torch", "trace") from None
except (ImportError, OSError) as error:  # a library of CUDA's that its build wants is not there
    raise NotModelled(f"torch cannot be imported: {str(error).splitlines()[0]}") from error
