"""Prefix matching in plain vectorised PyTorch."""
