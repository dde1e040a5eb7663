"""Measurements, each as ratios between things measured in turn in the same run."""
