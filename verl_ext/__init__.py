"""What any verl user could reuse: a CPU platform for verl and vLLM, and killable worker processes."""
