"""Benchmarks: this server and its peers on the same work, in turn, in one run. See ``scripts/bench --help``."""
