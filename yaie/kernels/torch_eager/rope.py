"""Rotary position embedding in plain vectorised PyTorch."""
