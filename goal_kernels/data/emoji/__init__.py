"""Drawings of things by several vendors, with people's names and keywords: ``data emoji``."""
