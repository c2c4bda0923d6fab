"""P-Tuning v2: prefix tuning whose keys and values train themselves (Liu et al. 2021, arXiv:2110.07602, section 3.2).

Trainable parameters: 2 * layers * virtual_tokens * head_dim * heads of K and V. It is what peft's prefix tuning does
by default. Keeps for backward: as prefix tuning, without the MLP.
"""

from memcalc.methods.prefix_tuning import PrefixTuning

METHOD = PrefixTuning
IMPLIES = {"prefix_projection": False}
