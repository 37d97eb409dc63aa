"""One module per kind of answer, and what they share: extraction, text, screening, child processes."""
