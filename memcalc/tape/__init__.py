"""A small autograd over symbolic tensors: it computes nothing and notes every memory block."""
