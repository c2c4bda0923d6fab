"""DoRA: LoRA on the directions of a weight, and a magnitude of each output (Liu et al. 2024, arXiv:2402.09353).

Trainable parameters: LoRA's and d_out per target. Keeps for backward: LoRA's, the magnitudes over the adapted weight's
norm, the layer's own output and the update's; each forward computes that norm anew, over the whole weight in A's dtype.
"""

from memcalc.methods.lora import Lora

METHOD = Lora
IMPLIES = {"use_dora": True}
