"""
The seams: what each room may ask of another.

Methods that return a Deferred say what it fires with. Nothing here imports
more than the vocabulary, so that each room, and a third party's tunnel
backend, needs only this page.
"""

from __future__ import annotations

from rdvtwisted.interfaces.devices import IDesk, ILine, IReception, ITicketOffice, ITunnelSeat, ITunnelStream
from rdvtwisted.interfaces.joins import IGlue, IJoin, IRelay, IServerSite, IServerTunnel
from rdvtwisted.interfaces.machine import INetwork, IPacketDevice, IProgram, IPrograms
from rdvtwisted.interfaces.records import IAuditTrail, IEventSink, IInventory
from rdvtwisted.interfaces.tunnels import IDeviceTunnel, ITunnelBackend, ITunnelSite

__all__ = [
    "IAuditTrail",
    "IDesk",
    "IDeviceTunnel",
    "IEventSink",
    "IGlue",
    "IInventory",
    "IJoin",
    "ILine",
    "INetwork",
    "IPacketDevice",
    "IProgram",
    "IPrograms",
    "IReception",
    "IRelay",
    "IServerSite",
    "IServerTunnel",
    "ITicketOffice",
    "ITunnelBackend",
    "ITunnelSeat",
    "ITunnelSite",
    "ITunnelStream",
]
