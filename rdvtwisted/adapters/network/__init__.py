"""The network configuration of this machine, and its TUN and TAP devices."""
