"""What user code may do to its process, and how ours goes on all the same."""
