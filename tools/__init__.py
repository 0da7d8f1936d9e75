"""Tools of the project's developers; not part of the library and not installed."""
