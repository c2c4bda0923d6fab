"""LongLoRA: LoRA beside trained embeddings and norms, under shifted sparse attention (Chen et al. 2023,
arXiv:2309.12307, sections 3.2 and 3.3).

Trainable parameters: LoRA's, and the embeddings and all norms of the base, in place and in its dtype; a tied head is
the embedding's. peft saves none of these, so that a checkpoint has them besides. Keeps for backward: LoRA's, each
norm's normed input, and queries, keys and values laid out in groups; of eager attention scores within groups only, a
`group_size_ratio` of all. In use it attends to everything.
"""

from memcalc.methods.lora import Lora

METHOD = Lora
# LongLoRA's fine-tune.py goes by embed and norm; the others are what GPT-2 and its kin call theirs.
IMPLIES = {"group_size_ratio": 0.25, "trainable_params": ("embed", "norm", "wte", "wpe", "ln_")}
