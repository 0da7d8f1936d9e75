"""The losses and evaluators by the names and arguments of packages that people train with.

One module a package: `vse`, `evaluate`, `open_clip`, `sentence_transformers`, `metric_learning`.
None imports the package it is named after; docs/compat.md shows the line that changes in a user's
code, and where the mathematics coincide.
"""
