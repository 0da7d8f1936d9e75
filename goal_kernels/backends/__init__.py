"""What computes: one module or folder a backend, what they share, and the choice among them."""
