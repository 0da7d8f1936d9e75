"""`goal-kernels export`: a trained model as files that torch alone can run."""
