"""QLoRA: LoRA over a base quantized to NF4 with double quantization (Dettmers et al. 2023, arXiv:2305.14314).

Trainable parameters: LoRA's. What differs is the base: its format, and the preparation for k-bit training.
"""

from memcalc.methods.lora import Lora

METHOD = Lora
IMPLIES = {"quant": "nf4", "double_quant": True}
