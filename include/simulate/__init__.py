"""The simulated company; none of it is real, and nothing outside demo, tests and benchmarks depends on it."""
