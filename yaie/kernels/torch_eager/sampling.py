"""Sampling in plain vectorised PyTorch."""
