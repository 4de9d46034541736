"""What decoding may cost: every bound on what a few bytes from outside can make a process hold, do or answer."""
