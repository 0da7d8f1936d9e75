"""`goal-kernels eval`: checkpoints, embeddings and similarities under the field's protocols."""
