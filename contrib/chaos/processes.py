# SPDX-License-Identifier: MIT
"""The processes of an instance, seen from outside through /proc, and signals that reach only the intended process.

The program that injects faults is the subreaper of everything it starts: a process whose parent was killed becomes its
child, so none is lost. A signal goes through a pidfd. Once the pidfd is open, the process is checked again, because its
number may name another process by then.
"""
import ctypes
import os
import re
import signal
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# How the daemon names its children: "keeper", "SOURCE producer STATE", "SOURCE/STAGE[N] STATE".
TITLE = re.compile(r"eventpiped: (?:(?P<keeper>keeper)|(?P<producer>\S+ producer)|(?P<worker>\S+/\S+\[\d+\]))")


def prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(%d)" % option)


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent ends."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: int, parent: int) -> None:
    """Sends this process a signal when its parent ends, and at once if it has ended already."""
    prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: state, parent, ...; none when the process is gone."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def parent_of(pid: int) -> int:
    fields = stat_of(pid)
    return int(fields[1]) if fields else 0


def is_forked(pid: int) -> bool:
    """Whether its parent gets SIGCHLD at its end, as for every forked process. LeakSanitizer's clone is the exception: it
    must not be killed, because its parent would wait for it for ever."""
    fields = stat_of(pid)
    return bool(fields) and int(fields[35]) == signal.SIGCHLD


def children_of(pid: int) -> list[int]:
    """From the kernel's list or, where it has none, from a search through all processes."""
    found = []
    try:
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, task)) as file:
                found += map(int, file.read().split())
    except FileNotFoundError:
        if not os.path.exists("/proc/self/task/%d/children" % os.getpid()):
            found = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and parent_of(int(entry)) == pid]
    except OSError:
        pass
    return [child for child in found if is_forked(child)]


def tree_of(pid: int) -> list[tuple[int, int]]:
    """(process, its parent) of the process and all its descendants, the process itself first with parent 0."""
    tree = [(pid, 0)]
    for member, _ in tree:
        tree += ((child, member) for child in children_of(member))
    return tree


def title_of(pid: int) -> re.Match | None:
    """What a child of the supervisor says it is; None when it has no title yet."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return TITLE.match(file.read().decode(errors="replace"))
    except OSError:
        return None


def kind_of(pid: int) -> str:
    """What a child of the supervisor is: keeper, producer, worker, or newborn before it has its title."""
    title = title_of(pid)
    return next((kind for kind in ("keeper", "producer", "worker") if title and title[kind]), "newborn")


def open_pidfd(pid: int, parent: int) -> int | None:
    """A pidfd of the process if it still is a child of `parent` (0: a child of ours, which cannot be another's)."""
    try:
        handle = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):
        return None
    if parent and parent_of(pid) != parent:
        os.close(handle)
        return None
    return handle


# ---- the end of them all ----

def reap(but: int = 0) -> bool:
    """Reaps ended children other than the process `but`; whether any child besides that is left."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if ended is None or (but and ended.si_pid == but):
            return True
        os.waitpid(ended.si_pid, 0)


def names_of_descendants() -> list[str]:
    """"name (pid)" of each process that descends from this one and has not ended."""
    found = []
    for pid, _ in tree_of(os.getpid())[1:]:
        try:
            with open("/proc/%d/comm" % pid) as file:
                name = file.read().strip()
        except OSError:
            continue
        if stat_of(pid)[:1] not in (["Z"], ["X"], []):
            found.append("%s (%d)" % (name, pid))
    return found


def kill_children(patience_s: float) -> None:
    """Kills and reaps children, and those that become children by that, until none is left."""
    until = time.monotonic() + patience_s
    while reap() and time.monotonic() < until:
        for child in children_of(os.getpid()):
            try:
                os.kill(child, signal.SIGKILL)  # a child that is not reaped yet: its number cannot be another's
            except ProcessLookupError:
                pass
        time.sleep(0.002)  # between two looks
