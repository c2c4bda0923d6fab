"""Loading and the training loops, written over the tape as realize/ writes them over torch."""
