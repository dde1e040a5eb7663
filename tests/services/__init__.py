"""The programs' tests."""
