"""Micro benchmarks: pytest benchmarks/micro."""
