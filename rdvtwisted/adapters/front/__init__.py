"""The server's TLS door: its certificates, its one port, its tunnel streams and their relay."""
