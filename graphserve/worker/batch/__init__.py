"""Calls of several callers as one execution."""
