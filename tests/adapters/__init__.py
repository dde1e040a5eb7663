"""The adapters' tests."""
