"""Pruning inside training; each file needs the library it is named after."""
