"""Faults that are really injected into a graph under load, and what they cost: `python -m
tests.faults`.
"""
