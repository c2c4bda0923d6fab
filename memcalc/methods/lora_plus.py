"""LoRA+: LoRA whose B learns faster than its A (Hayou et al. 2024, arXiv:2402.12354, section 4).

Trainable parameters, and all that is kept: LoRA's. What differs is the order in which the optimizer steps: all A, then
all B, so that what a step holds for all tensors of a group at once is smaller.
"""

from memcalc.methods.lora import Lora

METHOD = Lora
IMPLIES = {"lr_ratio": 16.0}  # the paper's, section 5
