"""Files on a disk: what is read, written whole, kept for the next run, found by a pattern."""
