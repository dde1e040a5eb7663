"""
Which master may use which onsite, how, and until when: the rules, and what they come to.

A rule allows or denies. It names a master and an onsite, each by a device's id,
C{@group} or C{*} for all; modes, or all; destinations behind the onsite, or the
whole LAN; an end, or none. The order of rules means nothing:

  - What no rule allows is denied.
  - A deny beats every allow. One without destinations forbids the session; one with destinations forbids
    those, and the session goes on without them.
  - What several rules allow adds up.
  - A rule that is past its end is as good as gone.

A bridged session (L2) carries frames, not connections: who is in a LAN can
take any address there. So destinations cannot be kept in it, and a rule that
allows destinations allows no L2; one that denies some denies L2.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import lru_cache, reduce
from operator import or_

from attrs import Factory, evolve, field, frozen

from rdvtwisted.errors import InvalidValue
from rdvtwisted.scope import ALL, LONGEST_SCOPE, Destination, Scope
from rdvtwisted.values import Mode, device_id

#: Rules of a policy, groups, devices of a group, destinations of a rule, characters of a comment.
MOST_RULES = 10_000
MOST_GROUPS = 1_000
MOST_MEMBERS = 10_000
MOST_RULE_DESTINATIONS = 64
LONGEST_COMMENT = 200

#: Every device; and how the name of a group begins.
EVERYBODY = "*"
GROUP_SIGN = "@"

_GROUP = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
#: Seconds since the epoch: the years that dates can have.
_LATEST = 253_402_300_799.0


class Effect(str, Enum):
    """What a rule does."""

    ALLOW = "allow"
    DENY = "deny"

    def __str__(self) -> str:
        return self.value


def group_name(text: str) -> str:
    """
    C{text} if it can be a group's name: of the form of a device's id.

    @raise InvalidValue: otherwise.
    """
    if _GROUP.fullmatch(text) is None:
        raise InvalidValue("group", text, "use 1 to 32 of a-z 0-9 _ -, not starting with a digit or dash")
    return text


def subject(text: str) -> str:
    """
    C{text} if a rule can name it: a device's id, C{@group} or C{*}.

    @raise InvalidValue: otherwise.
    """
    if text == EVERYBODY:
        return text
    if text.startswith(GROUP_SIGN):
        return GROUP_SIGN + group_name(text[1:])
    return device_id(text)


@lru_cache(1024)
def _scope_of(destinations: tuple[Destination, ...]) -> Scope:
    return Scope.of(destinations) if destinations else ALL


@frozen(cache_hash=True)
class Rule:
    """
    One rule.

    @ivar number: its name among the others; 0 before it has one.
    @ivar modes: those it is about, in the order of L{Mode}; all, if it names none.
    @ivar destinations: what it is about; empty for the whole LAN.
    @ivar until: its end, in seconds since the epoch.
    @raise InvalidValue: a field cannot be used.
    """

    effect: Effect
    master: str = field(converter=subject)
    onsite: str = field(converter=subject)
    modes: tuple[Mode, ...] = tuple(Mode)
    destinations: tuple[Destination, ...] = ()
    until: float | None = None
    comment: str = ""
    number: int = 0

    def __attrs_post_init__(self) -> None:
        if not self.modes or list(self.modes) != [mode for mode in Mode if mode in self.modes]:
            raise InvalidValue("modes", " ".join(self.modes), "name each mode once, L3 before L2, or none for both")
        if len(self.destinations) > MOST_RULE_DESTINATIONS:
            raise InvalidValue(
                "number of destinations", str(len(self.destinations)), f"a rule has at most {MOST_RULE_DESTINATIONS}"
            )
        if self.until is not None and not 0 < self.until <= _LATEST:
            raise InvalidValue("end", str(self.until), "it is a moment before the year 10000")
        if len(self.comment) > LONGEST_COMMENT or not self.comment.isprintable():
            raise InvalidValue("comment", self.comment, f"use one line of at most {LONGEST_COMMENT} characters")

    @property
    def scope(self) -> Scope:
        """Its destinations as one set."""
        return _scope_of(self.destinations)

    def lives(self, now: float) -> bool:
        """Whether it is not past its end."""
        return self.until is None or now < self.until

    def names(self, name: str) -> bool:
        """Whether it names this device or C{@group}."""
        return name in (self.master, self.onsite)


@frozen
class Grant:
    """
    What a master may do at an onsite, as the rules say it at one moment.

    @ivar scope: where packets may go; L{ALL} in L2.
    @ivar ends_at: when no session may be any more, in seconds since the epoch; C{None}: never.
    @ivar changes_at: when to decide anew, because the rules may come to something else; C{None}: never.
    """

    scope: Scope
    ends_at: float | None = None
    changes_at: float | None = None


@frozen
class SessionGrant:
    """
    What the server tells the devices of a session of what may be done in it.

    @ivar revision: another number whenever something else may be done; as in L{rdvtwisted.values.SessionView}.
    @ivar seconds: until the session must end; relative, so that no device needs to know the time. C{None}: no end.
    @ivar scope: where packets may go.
    """

    revision: int
    seconds: float | None
    scope: Scope


def _index(policy: Policy) -> Mapping[tuple[str, str], list[Rule]]:
    found = defaultdict(list)
    for rule in policy.rules:
        found[rule.master, rule.onsite].append(rule)
    return found


def _memberships(policy: Policy) -> Mapping[str, list[str]]:
    found = defaultdict(list)
    for name, members in policy.groups.items():
        for member in members:
            found[member].append(GROUP_SIGN + name)
    return found


@frozen
class Policy:
    """
    All rules, and the groups that they name. One that is empty denies everything.

    @ivar rules: by number, which is positive and unique.
    @ivar groups: ids of devices by the group's name, each in order and once.
    @raise InvalidValue: they do not fit together.
    """

    rules: tuple[Rule, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(factory=dict, hash=False)
    _pairs: Mapping[tuple[str, str], list[Rule]] = field(
        default=Factory(_index, takes_self=True), init=False, eq=False, repr=False
    )
    _member_of: Mapping[str, list[str]] = field(
        default=Factory(_memberships, takes_self=True), init=False, eq=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        for what, number, most in (
            ("rules", len(self.rules), MOST_RULES),
            ("groups", len(self.groups), MOST_GROUPS),
            ("devices of a group", max(map(len, self.groups.values()), default=0), MOST_MEMBERS),
        ):
            if number > most:
                raise InvalidValue(f"number of {what}", str(number), f"there are at most {most}")
        numbers = [rule.number for rule in self.rules]
        if numbers != sorted(set(numbers)) or (numbers and numbers[0] < 1):
            raise InvalidValue("rules", "", "each has a number of its own, from 1 on, in order")
        for name, members in self.groups.items():
            group_name(name)
            if list(members) != sorted(set(map(device_id, members))):
                raise InvalidValue("group", name, "its devices are in order, each once")
        for rule in self.rules:
            for named in (rule.master, rule.onsite):
                if named.startswith(GROUP_SIGN) and named[1:] not in self.groups:
                    raise InvalidValue("group", named[1:], "there is no such group")

    # What it comes to

    def matching(self, master: str, onsite: str) -> Iterator[Rule]:
        """All rules about these two, whatever their modes and ends."""
        for one in (master, EVERYBODY, *self._member_of.get(master, ())):
            for other in (onsite, EVERYBODY, *self._member_of.get(onsite, ())):
                yield from self._pairs.get((one, other), ())

    def decide(self, master: str, onsite: str, mode: Mode, now: float) -> Grant | None:
        """
        What the rules come to at this moment.

        @param now: seconds since the epoch.
        @return: C{None} if they do not allow a session.
        """
        rules = self._living(master, onsite, mode, now)
        scope = _scope(rules, mode)
        if not scope:
            return None
        moments = sorted({rule.until for rule in rules if rule.until is not None})
        for moment in moments:
            if not _scope(tuple(rule for rule in rules if rule.lives(moment)), mode):
                return Grant(scope, moment, moments[0])
        return Grant(scope, None, moments[0] if moments else None)

    def sees(self, master: str, onsite: str, now: float) -> bool:
        """Whether a master may know that there is this onsite: when it may use it, in some mode."""
        return any(_scope(self._living(master, onsite, mode, now), mode) for mode in Mode)

    def _living(self, master: str, onsite: str, mode: Mode, now: float) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.matching(master, onsite) if mode in rule.modes and rule.lives(now))

    # Changes, each of which makes another policy

    def with_rule(self, rule: Rule) -> Policy:
        """With one more rule, which gets the next number."""
        number = max((each.number for each in self.rules), default=0) + 1
        return evolve(self, rules=(*self.rules, evolve(rule, number=number)))

    def without_rules(self, numbers: Iterable[int]) -> Policy:
        """
        Without these rules.

        @raise InvalidValue: there is none of such a number.
        """
        gone = set(numbers)
        for number in sorted(gone - {rule.number for rule in self.rules}):
            raise InvalidValue("rule", str(number), "there is no such rule")
        return evolve(self, rules=tuple(rule for rule in self.rules if rule.number not in gone))

    def with_group(self, name: str, members: Iterable[str]) -> Policy:
        """With this group, in place of one of its name."""
        return evolve(self, groups={**self.groups, name: tuple(sorted(set(members)))})

    def without_group(self, name: str) -> Policy:
        """
        Without this group.

        @raise InvalidValue: there is none, or a rule names it.
        """
        if name not in self.groups:
            raise InvalidValue("group", name, "there is no such group")
        for rule in self.rules:
            if rule.names(GROUP_SIGN + name):
                raise InvalidValue("group", name, f"rule {rule.number} names it: remove that first")
        return evolve(self, groups={each: members for each, members in self.groups.items() if each != name})

    def without_device(self, id: str) -> Policy:
        """Without the rules that name a device, and without it in the groups, which stay."""
        return Policy(
            tuple(rule for rule in self.rules if not rule.names(id)),
            {name: tuple(each for each in members if each != id) for name, members in self.groups.items()},
        )

    def devices(self) -> set[str]:
        """The ids of all devices that rules and groups name."""
        named = {each for rule in self.rules for each in (rule.master, rule.onsite)}
        named |= {member for members in self.groups.values() for member in members}
        return {each for each in named if each != EVERYBODY and not each.startswith(GROUP_SIGN)}


@lru_cache(1024)
def _scope(rules: tuple[Rule, ...], mode: Mode) -> Scope:
    """What rules come to that are about two devices, a mode and a moment."""
    allowed, denied = _total(rules, Effect.ALLOW), _total(rules, Effect.DENY)
    if mode is Mode.L2:
        whole = any(rule.scope == ALL for rule in rules if rule.effect is Effect.ALLOW)
        return ALL if whole and not denied else Scope()
    found = allowed - denied
    # What cannot be passed on is not permitted, rather than permitted in part.
    return found if len(str(found)) <= LONGEST_SCOPE else Scope()


def _total(rules: Iterable[Rule], effect: Effect) -> Scope:
    return reduce(or_, (rule.scope for rule in rules if rule.effect is effect), Scope())
