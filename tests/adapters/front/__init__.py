"""The TLS door's tests."""
