# SPDX-License-Identifier: MIT
"""What storm.py adds to the engine in contrib/chaos/: stages that record every call, looks into the store, and the proof
that each repeated call has its cause.

Stages leave one record per call (storm_stage.c, EXEC_STAGE) with their own clock's time, before they work. What is
committed is known by the next stage's first call, and by looks into the store. A repeated call is explained by a kill of
the worker that was called before: it or its program was killed after the one call and before the other, or its
supervisor was killed and a worker of another start repeats the call. The other explanation is the answer 'not now', which
the stage gives to some events at their first attempt. A kill explains at most a batch: the last calls of that worker.
"""
import array
import bisect
import collections
import contextlib
import os
import re
import struct
import sys
import time

from harness import CHAOS, check

sys.path.insert(0, CHAOS)
import store  # noqa: E402

RECORD = struct.Struct("<QIHHIIII")
Call = collections.namedtuple("Call", "time_ns number stage start attempt path caller worker")
START = "STORM_START"  # a variable of the daemon's environment: which start it is, from 1
STAGES = 4  # without the recorder
DEFER = 64  # as in storm_stage.c
# How long after its kill a process may have been seen at work: the signal finds it running on another processor.
RUNS_ON_NS = 1_000_000_000

# As storm_stage.c, for a program: arguments are the file of records and the stage's position.
EXEC_STAGE = """
import json, os, struct, sys, time
records = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
stage, start, caller, worker = int(sys.argv[2]), int(os.environ["STORM_START"]), os.getpid(), os.getppid()
for line in sys.stdin.buffer:
    call = json.loads(line)
    number = int("".join(c if c.isdigit() else " " for c in call["event"]["uid"]).split()[-1])
    attempt, path = call["attempt"], call["context"].get("path", 0)
    record = struct.pack("<QIHHIIII", time.monotonic_ns(), number, stage, start, attempt, path, caller, worker)
    if os.write(records, record) != len(record):
        answer = {"reject": "the call cannot be recorded"}
    elif attempt == 1 and number % DEFER == stage:
        answer = {"processed": False, "retry_after": "10ms"}
    else:
        answer = {"processed": True, "context": {"path": path * 10 + stage}}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\\n")
    sys.stdout.buffer.flush()
""".replace("DEFER", str(DEFER))


def number_of(uid):
    """The digits that a uid ends with, from 1."""
    return int(re.search(r"\d+$", uid)[0])


class Source:
    """What is known of one source's events, by number from 1."""

    def __init__(self, id, directory):
        self.id = id
        self.files = [os.path.join(directory, "%s-%d.calls" % (id, stage)) for stage in range(1, STAGES + 1)]
        self.recorded = os.path.join(directory, id + ".recorded")
        self.fetched = 0
        self.open = set()
        self.seen = [array.array("Q", [0]) for _ in range(STAGES)]  # when a look saw that the stage was committed

    def size(self):
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


def look(database, sources):
    """One look into the store; False when it could not be taken."""
    snapshot = store.read(database, with_events=True)
    if snapshot is None:
        return False
    now = time.monotonic_ns()
    for id, totals in snapshot.sources.items():
        sources[id].learn(totals.fetched, {number_of(event.uid): event.stages_done for event in snapshot.events
                                           if event.source == id}, now)
    return True


class Proof:
    """Compares what was called with what was committed and what the injector has killed."""

    def __init__(self, injector, batch):
        self.injector, self.batch = injector, batch
        self.tally = collections.Counter()
        self.faults = []
        self.followed_kills = set()  # (start, worker) of the kills that a repeated call followed
        self.most = 0  # repeated after one of them
        self.longest_run_on = self.longest_late = 0

    def fault(self, kind, format, *values):
        self.tally[kind] += 1
        if len(self.faults) < 20:
            self.faults.append(kind + ": " + format % values)

    # ---- what was killed

    def worker_kill(self, call, until):
        """When the worker of this call was killed, it or its program, and before `until`; else None."""
        for killed in self.injector.process_kills.get((call.start, call.worker), ()):
            if call.time_ns - RUNS_ON_NS <= killed <= until:
                return killed
        return None

    def end(self, call):
        """When the supervisor of this call's worker was gone, if it was killed and maybe after the call; else None."""
        killed, gone = self.injector.supervisor_kills.get(call.start, (0, 0))
        return gone if killed and call.time_ns <= gone + RUNS_ON_NS else None

    def cause(self, earlier, later):
        """The kill after which the call `later` may repeat `earlier`; None when there was none."""
        killed = self.worker_kill(earlier, later.time_ns)
        return killed or (self.end(earlier) if later.start > earlier.start else None)

    # ---- what was called

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
                self.fault("unknown", "%s: %s of stage %d, path %d expected", source.id, call, stage, path)
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
        if late <= RUNS_ON_NS and (self.worker_kill(call, call.time_ns) or self.end(call)):
            self.tally["late"] += 1
            self.longest_late = max(self.longest_late, late)
        else:
            self.fault("after commit", "%s: %s came %d us after the commit", source.id, call, late // 1000)

    def repeated(self, source, earlier, call):
        """Whether the call repeats the earlier one after a kill of its worker."""
        if call.attempt < earlier.attempt:
            self.fault("unknown", "%s: attempt %d after attempt %d: %s", source.id, call.attempt, earlier.attempt, call)
        if earlier.attempt == 1 and call.number % DEFER == call.stage and call.attempt > 1:
            self.tally["put off"] += 1
            return False
        self.tally["repeated"] += 1
        killed = self.cause(earlier, call)
        if not killed:
            self.fault("unexplained", "%s: %s repeats %s", source.id, call, earlier)
            return False
        self.longest_run_on = max(self.longest_run_on, earlier.time_ns - killed)
        self.followed_kills.add((earlier.start, earlier.worker))
        return True

    def within_batch(self, earlier, length):
        """A worker commits all its calls but its last ones, a batch at most, before it makes more."""
        self.most = max(self.most, length)
        if length > self.batch:
            self.fault("unexplained", "%s was repeated, and its worker had made %d calls since", earlier, length - 1)
