"""From an import string to the Plan: what will run, and how it is connected. User code is imported in the resolver."""
