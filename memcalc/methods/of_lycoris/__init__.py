"""What LoHa and LoKr share, which come from one library: no methods by themselves, so they stand in a folder."""
