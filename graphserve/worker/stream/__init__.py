"""Streams into an API and out of one."""
