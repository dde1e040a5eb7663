"""
What each kind of step does, and what takes it back.

Four verbs: L{observe} says, before anything is changed, what has to be
remembered; L{take} brings about what the step says; L{holds} says whether it
is still so; L{take_back} restores what was observed. A step that was never taken, or taken in part, can be taken back
as well: what was there before stays, what is not there is not missed.
"""

from __future__ import annotations

import errno
from typing import Union

from rdvtwisted.adapters.network.kernel import Kernel, Link
from rdvtwisted.plan import (
    Address,
    Connections,
    FirewallTable,
    LinkUp,
    Pair,
    Promiscuous,
    Redirection,
    Route,
    Rule,
    Step,
    Sysctl,
    TunTap,
)

#: What is remembered of the time before a step: something that JSON can hold.
#: An address, route, rule, pair, TUN or TAP: whether it was there. Promiscuous: whether it
#: was so, or None without such interface. A link: whether it was up, and
#: its MTU, or None without link. A sysctl: its value, or None without such file.
Before = Union[None, bool, str, list[int]]


def observe(kernel: Kernel, step: Step) -> Before:
    """
    What has to be remembered so that the step can be taken back.

    @raise OSError: the kernel does not say.
    """
    if isinstance(step, Address):
        return (step.interface, step.address) in kernel.routing.addresses()
    if isinstance(step, LinkUp):
        link = kernel.routing.link(step.interface)
        return None if link is None else [int(link.up), link.mtu]
    if isinstance(step, Route):
        return kernel.routing.has_route(step)
    if isinstance(step, Rule):
        return kernel.routing.has_rule(step)
    if isinstance(step, Sysctl):
        return kernel.sysctls.read(step.path)
    if isinstance(step, Pair):
        return kernel.routing.link(step.near) is not None
    if isinstance(step, TunTap):
        return kernel.routing.link(step.interface) is not None
    if isinstance(step, Promiscuous):
        return kernel.wiring.promiscuous(step.interface)
    return None


def take(kernel: Kernel, step: Step, before: Before) -> None:
    """
    Bring about what the step says, unless it is so already.

    @raise OSError: the kernel refuses it.
    """
    if isinstance(step, TunTap):
        # One that is there already is not ours to give to a program: the kernel refuses a second one.
        kernel.wiring.add_tuntap(step.interface, step.mode)
    elif before is True:
        return  # that is said of what is there or not only
    elif isinstance(step, Address):
        kernel.routing.add_address(step.interface, step.address)
    elif isinstance(step, LinkUp):
        kernel.routing.set_link(step.interface, Link(up=True, mtu=step.mtu))
    elif isinstance(step, Route):
        kernel.routing.add_route(step)
    elif isinstance(step, Rule):
        kernel.routing.add_rule(step)
    elif isinstance(step, Sysctl):
        _set(kernel, step, before)
    elif isinstance(step, FirewallTable):
        kernel.firewall.replace(step)
    elif isinstance(step, Pair):
        kernel.wiring.add_pair(step.near, step.far)
    elif isinstance(step, Redirection):
        kernel.wiring.redirect(step.source, step.target)
    elif isinstance(step, Promiscuous):
        kernel.wiring.set_promiscuous(step.interface, True)


def holds(kernel: Kernel, step: Step) -> bool:
    """
    Whether it is as a step says that was taken.

    @param step: any but a firewall table: what is in that one can be compared with a listing only.
    @raise OSError: the kernel does not say.
    """
    if isinstance(step, LinkUp):
        return kernel.routing.link(step.interface) == Link(up=True, mtu=step.mtu)
    if isinstance(step, Sysctl):
        return kernel.sysctls.read(step.path) in (step.value, None)
    if isinstance(step, Connections):
        return True
    if isinstance(step, Redirection):
        return kernel.wiring.redirects(step.source, step.target)
    return bool(observe(kernel, step))


def take_back(kernel: Kernel, step: Step, before: Before) -> bool:
    """
    Restore what L{observe} saw.

    @return: whether anything had to be changed that can be seen.
    @raise OSError: the kernel refuses it.
    """
    if isinstance(step, (Address, Route, Rule, Pair, TunTap)):
        return not before and _remove(kernel, step)
    if isinstance(step, LinkUp):
        return _restore_link(kernel, step, before)
    if isinstance(step, Sysctl):
        # Another value than ours is somebody else's wish of meanwhile.
        if not isinstance(before, str) or before == step.value or kernel.sysctls.read(step.path) != step.value:
            return False
        kernel.sysctls.write(step.path, before)
        return True
    if isinstance(step, FirewallTable):
        return kernel.firewall.remove(step)
    if isinstance(step, Connections):
        kernel.routing.forget_connections(step.mark)
    if isinstance(step, Redirection):
        return kernel.wiring.stop_redirection(step.source)
    if isinstance(step, Promiscuous):
        return before is False and _calm(kernel, step)
    return False


def _remove(kernel: Kernel, step: Address | Route | Rule | Pair | TunTap) -> bool:
    """Whether what is there or not was there; it is gone now."""
    if isinstance(step, Address):
        return kernel.routing.remove_address(step.interface, step.address)
    if isinstance(step, Route):
        return kernel.routing.remove_route(step)
    if isinstance(step, Rule):
        return kernel.routing.remove_rule(step)
    return kernel.wiring.remove_link(step.near if isinstance(step, Pair) else step.interface)


def _set(kernel: Kernel, step: Sysctl, before: Before) -> None:
    now = kernel.sysctls.read(step.path) if before is None else before
    if now is None and not step.optional:
        raise FileNotFoundError(errno.ENOENT, "the kernel has no such setting")
    if now not in (None, step.value):
        kernel.sysctls.write(step.path, step.value)


def _calm(kernel: Kernel, step: Promiscuous) -> bool:
    if not kernel.wiring.promiscuous(step.interface):
        return False
    kernel.wiring.set_promiscuous(step.interface, False)
    return True


def _restore_link(kernel: Kernel, step: LinkUp, before: Before) -> bool:
    if not isinstance(before, list):
        return False
    then, now = Link(bool(before[0]), before[1]), kernel.routing.link(step.interface)
    if now in (None, then):
        return False
    kernel.routing.set_link(step.interface, then)
    return True
