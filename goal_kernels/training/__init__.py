"""Training of a dual encoder with GOAL objectives.

The parts are plain torch (`pooling`, `encoders`, `model`, `augmentation`, `warmup`, `data`); a thin
Lightning shell drives them (`lightning_module`, `data_module`, `lightning_cli`). Nothing here is
imported by `import goal_kernels`.
"""
