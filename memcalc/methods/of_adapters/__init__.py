"""What adapter methods have in common: no methods by themselves, so they stand in a folder of their own."""
