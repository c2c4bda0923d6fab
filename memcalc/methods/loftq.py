"""LoftQ: LoRA that begins as what quantization takes from the weight (Li et al. 2023, arXiv:2310.08659, section 3).

Trainable parameters, and all that is kept: LoRA's, over a base that is quantized and dequantized again. Loading
decomposes each target's weight in fp32, so often as it is asked to, and puts a new weight in its place.
"""

from memcalc.methods.lora import Lora

METHOD = Lora
IMPLIES = {"init_lora_weights": "loftq"}
