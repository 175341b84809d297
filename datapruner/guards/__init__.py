"""What holds off others' programs and data: limits of time, memory, size and depth, and children that can be ended."""
