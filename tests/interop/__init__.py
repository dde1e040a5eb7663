"""The product beside stock programs."""
