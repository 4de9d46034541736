"""Benchmarks: graphserve, the plain floor and its peers on the same work, side by side in one run
(`nox -s bench`).
"""
