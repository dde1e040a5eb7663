"""The tunnel backend C{plain}: frames in a channel of the device's SSH connection."""
