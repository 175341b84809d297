"""Mostly valid runs, mutated in a few places, by the thousand: `python -m tests.faults.fuzz --seconds N --seed S`."""
