"""The built-in cleaning steps, a file each: its reasons, its rule, and what switches it on."""
