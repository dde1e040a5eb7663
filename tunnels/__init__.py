"""Tunnel backends: each carries a device's packets its own way, and sees only the vocabulary."""
