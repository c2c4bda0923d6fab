"""rsLoRA: LoRA whose update is scaled by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732, section 3).

Trainable parameters, and all that is kept: LoRA's.
"""

from memcalc.methods.lora import Lora

METHOD = Lora
IMPLIES = {"use_rslora": True}
