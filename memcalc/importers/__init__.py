"""Other tools' configs, read as a Workload: one file each. Nothing that stands in them is executed or fetched."""
