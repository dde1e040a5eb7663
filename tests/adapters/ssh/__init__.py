"""Tests of the SSH door and of the device's way to it."""
