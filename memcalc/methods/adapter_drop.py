"""AdapterDrop: Pfeiffer adapters in the upper layers only (Rücklé et al. 2020, arXiv:2010.11918, section 3).

Trainable parameters: Pfeiffer's, of the layers that keep their adapter: by default the lowest five lose it. What lies
below the lowest adapter takes no part in backward and keeps nothing, unless checkpointing makes the embedding's output
require a gradient.
"""

from memcalc.methods.pfeiffer import Pfeiffer

METHOD = Pfeiffer
IMPLIES = {"drop_layers": 5}
