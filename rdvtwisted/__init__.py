"""Remote access for support engineers: a rendezvous server, onsite devices and master devices."""

__version__ = "0.1.0"
