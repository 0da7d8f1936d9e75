"""`goal-kernels explore`: a local web page over a finished run."""
