"""Tests of the tunnel backends."""
