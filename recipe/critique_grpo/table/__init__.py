"""The paper's main table for one model: its rows as jobs, what they cost, and the results beside the paper's."""
