"""From an experiment file to runs, keys and records; and what the notebooks call."""
