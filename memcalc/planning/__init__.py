"""What to change so that a run fits: every answer is a workload that was really estimated."""
