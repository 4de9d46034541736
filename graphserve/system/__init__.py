"""What the operating system gives and refuses: processes, descriptors, folders, signals. Used in every process."""
