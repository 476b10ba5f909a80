"""Storage: the segments, control file, recovery and retention of partitions, and the catalog."""
