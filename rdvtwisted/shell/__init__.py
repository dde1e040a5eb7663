"""The restricted shell of the SSH door: the server's side of its line protocol and, as a twin, the device's."""
