"""What the entry answers beside its APIs: health, documentation."""
