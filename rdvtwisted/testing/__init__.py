"""Memory twins and contracts, for the tests of this project and of those who write backends for it."""
