"""What FourierFT is made of, and its kin."""
