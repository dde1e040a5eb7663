"""Tests of the network's room."""
