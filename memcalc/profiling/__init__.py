"""A workload on a real device: torch's counters at every phase, NVML beside them, each case in its own process."""
