"""Benchmarks: each is a script on the cases that the tests use."""
