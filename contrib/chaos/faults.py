# SPDX-License-Identifier: MIT
"""Injects faults into a running instance: kills its processes, or stops them for a moment.

A seed decides which faults there are, when, and how long a stop lasts. Which process a fault finds depends on the machine,
too. The injector keeps a record of its kills, by which a caller can explain what it sees afterwards.
"""
import collections
import dataclasses
import heapq
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping

import processes

KEEPER_KILLS = 2  # of one start, when processes are spared: the supervisor brings a keeper back slowly


@dataclasses.dataclass(frozen=True)
class Profile:
    """How many faults of which kinds there are."""
    weights: Mapping[str, int]  # "kill worker": how often in comparison with the others
    pause_s: tuple[float, float]  # between two faults
    stop_s: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Fault:
    pause_s: float  # since the one before
    action: str  # kill or stop
    kind: str  # of process
    choice: float  # from 0 to 1: which of those there are
    stop_s: float


def plan(seed: int, profile: Profile) -> Iterator[Fault]:
    """An endless sequence of faults that depends only on the seed."""
    numbers = random.Random(seed)
    kinds, weights = list(profile.weights), list(profile.weights.values())
    while True:
        pause_s = numbers.uniform(*profile.pause_s)
        action, kind = numbers.choices(kinds, weights)[0].split()
        yield Fault(pause_s, action, kind, numbers.random(), numbers.uniform(*profile.stop_s))


class Injector:
    """Injects faults into one start of the daemon after the other, and keeps the ledger."""

    def __init__(self, spare: bool = False):
        """spare: kill a process again only after its place has done some work, so that slow stages get ahead."""
        self.injected = collections.Counter()  # by action and kind
        self.start = 0  # which start of the daemon the faults hit
        self.process_kills = collections.defaultdict(list)  # by start and pid: when
        self.supervisor_kills: dict[int, tuple[int, int]] = {}  # by start: when it was killed, when it was gone
        self.work: dict[str, int] = {}  # by place: the work done there so far, which the caller keeps up to date
        self.spare = spare
        self.killed_at: dict[str, int] = {}  # by place: the work done there when a process was killed last
        self.keeper_kills = 0
        self.stopped: list[tuple[float, int, int]] = []  # when it is resumed, serial number, pidfd
        self.serial = 0

    def begin_start(self) -> None:
        """The daemon starts again: its processes are new ones."""
        self.start += 1
        self.work.clear()
        self.killed_at.clear()
        self.keeper_kills = 0

    def inject(self, fault: Fault, supervisor: int) -> bool:
        """One fault; False when there is no process for it."""
        target = self.choose(fault, supervisor)
        if not target or not self.send(target, fault.action, fault.stop_s):
            return False
        self.injected["%s %s" % (fault.action, fault.kind)] += 1
        return True

    # ---- which process

    def choose(self, fault: Fault, supervisor: int) -> tuple[int, int] | None:
        """(process, its parent) of this kind."""
        if fault.kind == "supervisor":
            return supervisor, 0
        children = processes.children_of(supervisor)
        wanted = "worker" if fault.kind == "program" else fault.kind
        first = int(fault.choice * len(children))
        for child in children[first:] + children[:first]:
            if processes.kind_of(child) != wanted:
                continue
            programs = processes.children_of(child) if fault.kind == "program" else [0]
            if not programs or (self.spare and fault.action == "kill" and not self.may_kill(child, wanted)):
                continue
            return (programs[0], child) if fault.kind == "program" else (child, supervisor)
        return None

    def may_kill(self, child: int, kind: str) -> bool:
        """Whether its place has done some work since the last kill there. Remembers that it is killed now."""
        title = processes.title_of(child)
        if kind == "keeper":
            self.keeper_kills += 1
            return self.keeper_kills <= KEEPER_KILLS
        if not title or not title[kind]:
            return kind == "newborn"
        place = title[kind]
        work = self.work.get(place, 0)
        if self.killed_at.get(place, -1) >= work:
            return False
        self.killed_at[place] = work
        return True

    # ---- signals

    def send(self, target: tuple[int, int], action: str, stop_s: float = 0) -> bool:
        pid, parent = target
        handle = processes.open_pidfd(pid, parent)
        if handle is None:
            return False
        now = time.monotonic_ns()
        try:
            signal.pidfd_send_signal(handle, signal.SIGSTOP if action == "stop" else signal.SIGKILL)
        except ProcessLookupError:
            os.close(handle)
            return False
        if action == "stop":
            self.serial += 1
            heapq.heappush(self.stopped, (time.monotonic() + stop_s, self.serial, handle))
            return True
        os.close(handle)
        for dead in (pid, parent):  # a worker ends with its program
            self.process_kills[self.start, dead].append(now)
        return True

    def resume(self, everything: bool = False) -> None:
        """Continues the processes whose stop is over."""
        while self.stopped and (everything or self.stopped[0][0] <= time.monotonic()):
            _, _, handle = heapq.heappop(self.stopped)
            try:
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            except ProcessLookupError:
                pass
            os.close(handle)

    # ---- the hard ones

    def kill_supervisor(self, supervisor: int, wait: Callable[[], None]) -> None:
        """Kills the supervisor alone; `wait` returns when it is gone."""
        self.kill_all(supervisor, [], wait)
        self.injected["kill supervisor"] += 1

    def kill_instance(self, supervisor: int, choice: float, wait: Callable[[], None]) -> None:
        """Kills all processes, one after the other in an order that `choice` decides."""
        tree = processes.tree_of(supervisor)
        random.Random(choice).shuffle(tree)
        self.kill_all(supervisor, tree, wait)
        self.injected["kill instance"] += 1

    def kill_all(self, supervisor: int, targets: list[tuple[int, int]], wait: Callable[[], None]) -> None:
        """The supervisor's children learn of its crash when it is gone, and not when it is killed."""
        killed = time.monotonic_ns()
        for target in targets + [(supervisor, 0)]:
            self.send(target, "kill")
        wait()
        self.supervisor_kills[self.start] = (killed, time.monotonic_ns())

    def kills(self) -> int:
        return sum(count for name, count in self.injected.items() if name.startswith("kill"))
