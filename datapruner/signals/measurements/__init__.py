"""The built-in measurements: a file each, by the name of the measurement."""
