"""ReLoRA: LoRA that is merged into the weights every K steps and begins anew (Lialin et al. 2023, arXiv:2307.05695,
section 3).

Trainable parameters, and all that is kept: LoRA's. The footprint is that of a step that ends so: each target's update
(d_out, d_in) is computed in the adapters' dtype and added to its weight, one target after the other; A and B are drawn
anew, and the optimizer's states become zero, in place. The full-rank steps at the beginning are --method full's.
"""

from memcalc.methods.lora import Lora

METHOD = Lora
IMPLIES = {"restarts": True}
