"""The site that the benchmarks serve."""
