"""What LoRA's kin do besides: no methods by themselves, so they stand in a folder of their own."""
