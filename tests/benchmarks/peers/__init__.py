"""The same graphs on what a user would pick instead.

Each runs in a virtual environment of its own.
"""
