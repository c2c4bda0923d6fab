"""What AdaLoRA does beside its layers: no methods by themselves, so they stand in a folder of their own."""
