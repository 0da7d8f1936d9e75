"""The parts of `bench/gpu_session.py`: build, verify and measure on a GPU within minutes."""
