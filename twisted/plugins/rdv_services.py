"""The commands that C{twistd} gains: a table, and nothing else."""

from twisted.application.service import ServiceMaker

rdv_server = ServiceMaker(
    "RDV server",
    "tap.rdv_server",
    "The public rendezvous server, where onsite and master devices meet.",
    "rdv-server",
)

onsite_dev = ServiceMaker(
    "Onsite device",
    "tap.onsite_dev",
    "An onsite device: keeps a customer's LAN reachable through the RDV server.",
    "onsite-dev",
)

master_dev = ServiceMaker(
    "Master device",
    "tap.master_dev",
    "A master device: takes an engineer to the LAN of an onsite device.",
    "master-dev",
)
