# SPDX-License-Identifier: MIT
"""What storm.py is made of: the family of processes seen from outside, the killer, the witness, and the reckoning.

Stages leave one record per call (storm_stage.c, EXEC_STAGE) with their own clock's time, before they work. What is
committed is known by the next stage's first call, and by looks into the store. A repeated call is explained by the death
of that very worker which was called before: a blow on it or on its co-process, after the one call and before the other, or
the end of the supervisor that it belonged to, when another start's worker repeats it; or by the answer 'not now' that the
stage gives to some events at their first attempt. What a death explains is at most a batch: the last calls of that worker.
"""
import array
import bisect
import collections
import contextlib
import ctypes
import heapq
import os
import random
import re
import signal
import sqlite3
import struct
import time

from harness import PATIENCE, check

RECORD = struct.Struct("<QIHHIIII")
Call = collections.namedtuple("Call", "time_ns number stage start attempt path caller worker")
START = "STORM_START"  # a variable of the daemon's environment: which start it is, from 1
STAGES = 4
DEFER = 64  # as in storm_stage.c
# How long after its kill a process may have been seen at work: the signal finds it running on another processor.
RUNS_ON_NS = 1_000_000_000
PR_SET_CHILD_SUBREAPER = 36

# As storm_stage.c, for a program: arguments are the witness and the stage's position.
EXEC_STAGE = """
import json, os, struct, sys, time
witness = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
stage, start, caller, worker = int(sys.argv[2]), int(os.environ["STORM_START"]), os.getpid(), os.getppid()
for line in sys.stdin.buffer:
    call = json.loads(line)
    number = int("".join(c if c.isdigit() else " " for c in call["event"]["uid"]).split()[-1])
    attempt, path = call["attempt"], call["context"].get("path", 0)
    record = struct.pack("<QIHHIIII", time.monotonic_ns(), number, stage, start, attempt, path, caller, worker)
    if os.write(witness, record) != len(record):
        answer = {"reject": "the witness cannot be told"}
    elif attempt == 1 and number % DEFER == stage:
        answer = {"processed": False, "retry_after": "10ms"}
    else:
        answer = {"processed": True, "context": {"path": path * 10 + stage}}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\\n")
    sys.stdout.buffer.flush()
""".replace("DEFER", str(DEFER))


# ---- the family, seen from outside ----

def adopt_orphans():
    """What the death of a supervisor orphans becomes a child of this process: so nothing of it can get lost."""
    check(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "adopt orphans")


def reap_orphans(but):
    """Reaps dead children other than the process `but`; whether any child but that is left."""
    while True:
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if dead is None or (but and dead.si_pid == but):
            return True
        os.waitpid(dead.si_pid, 0)


def stat_of(pid):
    """The fields of /proc/PID/stat behind the name: state, parent, ...; none when the process is gone."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def parent_of(pid):
    fields = stat_of(pid)
    return int(fields[1]) if fields else 0


def forked(pid):
    """Whether its end is told to its parent, as that of all that is forked. LeakSanitizer looks for leaks from a clone of
    its own, whose end it is not told: it would wait for ever for one that was killed."""
    fields = stat_of(pid)
    return bool(fields) and int(fields[35]) == signal.SIGCHLD


def children_of(pid):
    """By the kernel's list, or by looking at every process where it keeps none."""
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
    return [child for child in found if forked(child)]


def family_of(pid):
    """(process, its parent), the given one first."""
    family = [(pid, 0)]
    for member, _ in family:
        family += ((child, member) for child in children_of(member))
    return family


def kind_of(pid):
    """What a child of the supervisor is, by its title."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            title = file.read().decode(errors="replace")
    except OSError:
        return "gone"
    match = re.match(r"eventpiped: (?:(keeper)|\S+ (producer)|\S+/\S+\[)", title)
    return match[1] or match[2] or "worker" if match else "newborn"


# ---- the killer ----

Blow = collections.namedtuple("Blow", "pause kind choice length")
WEIGHTS = {"kill worker": 34, "stop worker": 14, "kill co-process": 20, "stop co-process": 8, "kill producer": 6,
           "stop producer": 4, "kill keeper": 4, "stop keeper": 3, "stop supervisor": 1, "kill newborn": 6}
HARD = ("supervisor", "supervisor", "family", "in order")


def plan_of(seed):
    """The blows: what, how long after the one before, which of those there are, stopped for how long. The seed alone
    decides."""
    random_numbers = random.Random(seed)
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        yield Blow(random_numbers.uniform(0.005, 0.050), random_numbers.choices(kinds, weights)[0],
                   random_numbers.random(), random_numbers.choice((0.005, 0.02, 0.1, 0.4)))


class Killer:
    """Deals blows to a family and keeps the book of them."""

    def __init__(self):
        self.dealt = collections.Counter()
        self.start = 0  # which start of the daemon the blows fall on
        self.process_kills = collections.defaultdict(list)  # by start and pid: when struck
        self.supervisor_kills = {}  # by start: (when struck, when gone)
        self.stopped = []  # (when it goes on, serial, its handle)
        self.serial = 0

    def deal(self, blow, supervisor):
        """One blow; False when there is nobody for it."""
        action, kind = blow.kind.split()
        target = self.choose(kind, blow.choice, supervisor)
        if not target or not self.strike(target, action, blow.length):
            return False
        self.dealt[blow.kind] += 1
        return True

    def choose(self, kind, choice, supervisor):
        """(process, its parent) of this kind."""
        if kind == "supervisor":
            return supervisor, 0
        children = children_of(supervisor)
        wanted = "worker" if kind == "co-process" else kind
        first = int(choice * len(children))
        for child in children[first:] + children[:first]:
            if kind_of(child) != wanted:
                continue
            if kind != "co-process":
                return child, supervisor
            programs = children_of(child)
            if programs:
                return programs[0], child
        return None

    def strike(self, target, action, length=0):
        pid, parent = target
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        # Only now is it sure that the number is still this process's.
        if parent and parent_of(pid) != parent:
            os.close(handle)
            return False
        now = time.monotonic_ns()
        try:
            signal.pidfd_send_signal(handle, signal.SIGSTOP if action == "stop" else signal.SIGKILL)
        except ProcessLookupError:
            os.close(handle)
            return False
        if action == "stop":
            self.serial += 1
            heapq.heappush(self.stopped, (time.monotonic() + length, self.serial, handle))
            return True
        os.close(handle)
        for dead in (pid, parent):  # a worker ends with its co-process
            self.process_kills[self.start, dead].append(now)
        return True

    def let_go(self, everybody=False):
        """Lets those go on whose stop is over."""
        while self.stopped and (everybody or self.stopped[0][0] <= time.monotonic()):
            _, _, handle = heapq.heappop(self.stopped)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            os.close(handle)

    def kill_supervisor(self, daemon):
        self.kill_all(daemon, [(daemon.pid, 0)])
        self.dealt["kill supervisor"] += 1

    def kill_family(self, daemon, choice):
        """All of them, one after the other in an order that the seed decides."""
        family = family_of(daemon.pid)
        random.Random(choice).shuffle(family)
        self.kill_all(daemon, family + [(daemon.pid, 0)])
        self.dealt["kill family"] += 1

    def kill_all(self, daemon, processes):
        """The supervisor's children are told of its death when it is gone, and not when it is struck."""
        struck = time.monotonic_ns()
        for process in processes:
            self.strike(process, "kill")
        daemon.wait(PATIENCE)
        self.supervisor_kills[self.start] = (struck, time.monotonic_ns())

    def kills(self):
        return sum(count for kind, count in self.dealt.items() if kind.startswith("kill"))

    def death(self, call, until):
        """When the worker of this call was struck, it or its co-process, and before `until`; else None."""
        for struck in self.process_kills.get((call.start, call.worker), ()):
            if call.time_ns - RUNS_ON_NS <= struck <= until:
                return struck
        return None

    def end(self, call):
        """When the supervisor of this call's worker was gone, if by a blow that the call may have come before; else None."""
        struck, gone = self.supervisor_kills.get(call.start, (0, 0))
        return gone if struck and call.time_ns <= gone + RUNS_ON_NS else None

    def explains(self, earlier, later):
        """The death after which the call `later` may repeat `earlier`; None when there was none."""
        death = self.death(earlier, later.time_ns)
        return death or (self.end(earlier) if later.start > earlier.start else None)


# ---- the witness ----

class Source:
    """What is known of one source's events, by number from 1."""

    def __init__(self, id, directory):
        self.id = id
        self.files = [os.path.join(directory, "%s-%d.calls" % (id, stage)) for stage in range(1, STAGES + 1)]
        self.fetched = 0
        self.open = set()
        self.seen = [array.array("Q", [0]) for _ in range(STAGES)]  # when a look saw that the stage was committed

    def witnessed(self):
        """Bytes of records so far."""
        return sum(os.path.getsize(path) for path in self.files if os.path.exists(path))

    def reached_by(self, start):
        """Whether the last call of the last stage is by a worker of this start of the daemon."""
        with contextlib.suppress(FileNotFoundError), open(self.files[-1], "rb") as file:
            last = os.path.getsize(file.fileno()) - RECORD.size
            return last >= 0 and Call._make(RECORD.unpack(os.pread(file.fileno(), RECORD.size, last))).start == start
        return False

    def learn(self, fetched, progress, now):
        """progress: by number of an event in the store, how many stages it has behind it."""
        for seen in self.seen:
            seen.extend([0] * (fetched - self.fetched))
        self.open.update(range(self.fetched + 1, fetched + 1))
        self.fetched = fetched
        for number in list(self.open):
            done = progress.get(number, STAGES)
            for stage in range(done):
                if not self.seen[stage][number]:
                    self.seen[stage][number] = now
            if number not in progress:
                self.open.remove(number)


def number_of(uid):
    return int(re.search(r"\d+$", uid)[0])


def look(database, sources):
    """One look into the store, in one read-only transaction; False when it could not be taken."""
    try:
        with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % database, uri=True, timeout=1)) as store:
            store.execute("BEGIN")
            fetched = {row[0]: row[1:] for row in store.execute("SELECT id, name, fetched FROM source")}
            rows = store.execute("SELECT source, uid, done FROM event JOIN progress USING (seq) UNION ALL "
                                 "SELECT event.source, uid, done FROM event JOIN parked USING (seq)").fetchall()
    except sqlite3.OperationalError:
        return False
    now = time.monotonic_ns()
    for id, (name, count) in fetched.items():
        progress = {number_of(uid): done.count("\n") for source, uid, done in rows if source == id}
        sources[name].learn(count, progress, now)
    return True


# ---- the reckoning ----

class Reckoning:
    """Compares what was called with what was committed and who was killed."""

    def __init__(self, killer, batch):
        self.killer, self.batch = killer, batch
        self.tally = collections.Counter()
        self.faults = []
        self.deaths = set()  # those that a repeated call followed
        self.most = 0  # repeated after one of them
        self.longest_run_on = self.longest_late = 0

    def fault(self, kind, format, *values):
        self.tally[kind] += 1
        if len(self.faults) < 20:
            self.faults.append(kind + ": " + format % values)

    def source(self, source, count):
        """All calls of a source whose events are numbered 1 to count."""
        after = None  # when the stage behind was first called for each event
        self.tally["events"] += count
        for stage in range(STAGES, 0, -1):
            after = self.stage(source, stage, count, after)

    def stage(self, source, stage, count, after):
        """All calls of a stage; gives back when each event first came to it."""
        with open(source.files[stage - 1], "rb") as file:
            data = file.read()
        check(len(data) % RECORD.size == 0, "%s is no list of records" % source.files[stage - 1])
        seen, path = source.seen[stage - 1], int("0" + "123456789"[:stage - 1])
        first = array.array("Q", bytes(8 * (count + 1)))
        last = array.array("I", bytes(4 * (count + 1)))  # its last call: the record's number from 1
        workers = {}
        for place, call in enumerate(map(Call._make, RECORD.iter_unpack(data)), 1):
            number = call.number
            self.tally["calls"] += 1
            if not 0 < number <= count or call.stage != stage or call.path != path:
                self.fault("strange", "%s: %s of stage %d, path %d expected", source.id, call, stage, path)
                continue
            known = [t for t in (after[number] if after else 0, seen[number] if number < len(seen) else 0) if t]
            if known and call.time_ns > min(known):
                self.late(source, call, min(known))
            workers.setdefault((call.start, call.worker), []).append(place)
            if last[number]:
                earlier = Call._make(RECORD.unpack_from(data, (last[number] - 1) * RECORD.size))
                if self.repeated(source, earlier, call):
                    worker = workers[earlier.start, earlier.worker]
                    self.within_batch(earlier, len(worker) - bisect.bisect_left(worker, last[number]))
            if not first[number] or call.time_ns < first[number]:
                first[number] = call.time_ns
            last[number] = place
        for number in range(1, count + 1):
            if not first[number]:
                self.fault("lost", "%s-%d never came to stage %d", source.id, number, stage)
        return first

    def late(self, source, call, committed):
        """Called after its commit: only what was killed before may have been seen at work so late."""
        late = call.time_ns - committed
        if late <= RUNS_ON_NS and (self.killer.death(call, call.time_ns) or self.killer.end(call)):
            self.tally["late"] += 1
            self.longest_late = max(self.longest_late, late)
        else:
            self.fault("after commit", "%s: %s came %d us after the commit", source.id, call, late // 1000)

    def repeated(self, source, earlier, call):
        """Whether the call repeats the earlier one after a death of its worker."""
        if call.attempt < earlier.attempt:
            self.fault("strange", "%s: attempt %d after attempt %d: %s", source.id, call.attempt, earlier.attempt, call)
        if earlier.attempt == 1 and call.number % DEFER == call.stage and call.attempt > 1:
            self.tally["put off"] += 1
            return False
        self.tally["repeated"] += 1
        death = self.killer.explains(earlier, call)
        if not death:
            self.fault("unexplained", "%s: %s repeats %s", source.id, call, earlier)
            return False
        self.longest_run_on = max(self.longest_run_on, earlier.time_ns - death)
        self.deaths.add((earlier.start, earlier.worker))
        return True

    def within_batch(self, earlier, length):
        """A worker commits all its calls but its last ones, a batch at most, before it makes more."""
        self.most = max(self.most, length)
        if length > self.batch:
            self.fault("unexplained", "%s was repeated, and its worker had made %d calls since", earlier, length - 1)
