"""PiSSA: LoRA that begins as the weight's largest singular values and vectors, the weight as what is left of it
(Meng et al. 2024, arXiv:2404.02948, section 3).

Trainable parameters, and all that is kept: LoRA's. Loading makes an fp32 copy of each target's weight, decomposes it,
and puts a new weight in its place.
"""

from memcalc.methods.lora import Lora

METHOD = Lora
IMPLIES = {"init_lora_weights": "pissa"}
