"""All the I/O: each room here translates between one part of the outside world and the values of the core."""
