"""Tests of the restricted shell."""
