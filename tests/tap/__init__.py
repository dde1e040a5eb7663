"""Tests of what C{twistd} calls."""
