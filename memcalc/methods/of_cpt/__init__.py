"""What CPT does beside prompt tuning: no method by itself, so it stands in a folder of its own."""
