"""Benchmarks: `./run bench`, see README.md beside this file."""
