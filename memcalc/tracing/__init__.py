"""trace: the real step on the meta device, every storage's birth and death written into a Timeline."""
