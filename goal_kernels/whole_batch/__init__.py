"""Losses over all negatives of a batch, in blocks of rows of the similarity matrix."""
