"""Engines: who computes rows that are not stored. One file each, found by its name."""
