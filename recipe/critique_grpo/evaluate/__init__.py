"""Evaluation of a checkpoint on benchmarks by verl's own validation, with intervals and paired comparisons."""
