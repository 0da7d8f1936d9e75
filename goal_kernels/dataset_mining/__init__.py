"""`goal-kernels mine`: hard negatives of whole datasets, from files to files."""
