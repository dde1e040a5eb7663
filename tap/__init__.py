"""What C{twistd} calls: options, and the making of a service from them."""
