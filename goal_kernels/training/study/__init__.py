"""Studies: grids of training runs on matched budgets, resumable, with a generated results page."""
