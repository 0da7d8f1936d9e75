"""Comparison of runs: means over seeds, paired tests, tables and pictures."""
