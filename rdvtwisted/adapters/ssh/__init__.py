"""
The SSH door of the server, and the device's way to it.

L{rdvtwisted.adapters.ssh.server.SSHServer} makes the factories of the doors;
L{rdvtwisted.adapters.ssh.client.connect} opens a device's connection. Both
stand on Conch's key exchange and key formats (RFC 4253), and bring packet
protection, channels, flow control, authentication and liveness of their own,
because those of Conch neither bound memory nor time.
"""
