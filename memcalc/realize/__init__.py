"""The real thing on any device: transformers' model, peft's adapters, bitsandbytes' layers, the training loops.

trace runs it on the meta device under a recorder, profile on real ones; the code is the same.
"""
