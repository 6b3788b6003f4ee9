#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The storm: the engine of `eventpipe chaos` on stages that prove what it only counts. Three sources of four stages with
four workers each, programs and plugins mixed, at full speed, while workers, their programs, producers and the keeper are
killed or stopped every 5 to 50 ms, and now and then the supervisor or all processes at once; the daemon is then started
again as a service manager would. In the end every event came out, none came to a stage after its commit, no more calls were
repeated than the kills explain, and nothing is left over.

STORM_SECONDS is how long (20; 300 is the long form, with TEST_TIMEOUT=0), STORM_SEED decides which faults are injected.
"""
import fcntl
import json
import os
import random
import re
import sys
import time

import harness
import storm_calls as calls
from harness import check, equal, finish, wait_for

sys.path.insert(0, harness.CHAOS)
import accounting  # noqa: E402
import faults  # noqa: E402
import processes  # noqa: E402
import recorder  # noqa: E402
import report  # noqa: E402
import store  # noqa: E402
from daemon import Daemon  # noqa: E402

SECONDS = float(os.environ.get("STORM_SECONDS", "20"))
SEED = int(os.environ.get("STORM_SEED", "1"))
PROFILE = faults.Profile({"kill worker": 34, "stop worker": 14, "kill program": 20, "stop program": 8, "kill producer": 6,
                          "stop producer": 4, "kill keeper": 4, "stop keeper": 3, "stop supervisor": 1, "kill newborn": 6},
                         (0.005, 0.050), (0.005, 0.400))
HARD = ("supervisor", "supervisor", "instance", "shutdown")  # in turn
BATCH = 50
BACKLOG = 2000
AHEAD = 3000  # lines that the file has more than are fetched
# After so many faults without a pause a stage may have made no progress; once they pause, it must go on.
PATIENT_FAULTS = 60
CHAINS = {"north": "cpcc", "south": "pccp", "file": "ccpc"}  # c: plugin, p: program
# Words of the daemon's log
LOG_CRASH = re.compile(r'crash process="[^"]*" pid=(\d+).*')


class Storm:
    def __init__(self):
        self.instance = harness.Instance()
        self.injector = faults.Injector()
        self.daemon = Daemon([os.path.join(harness.BUILD, "eventpiped"), "-c", self.instance.config], self.instance.log,
                             self.injector, lambda start: {calls.START: str(start)})
        self.sources = {id: calls.Source(id, harness.DIRECTORY) for id in CHAINS}
        self.lines = os.path.join(harness.DIRECTORY, "lines")
        self.written = 0
        self.exec_stage = harness.script("storm_exec.py", calls.EXEC_STAGE)
        self.looks = self.drain_ms = 0
        self.seen = self.faults_then = 0

    # ---- the instance, and what a service manager does for it

    def stage(self, id, position, kind):
        records = self.sources[id].files[position - 1]
        if kind == "c":
            return self.keys("stage-%d" % position, 4, {
                "plugin": os.path.join(harness.BUILD, "tests", "system", "storm_stage.so"),
                "options": {"records": records, "stage": position}})
        return self.keys("stage-%d" % position, 4, {
            "exec": [sys.executable, "-I", "-S", "-B", self.exec_stage, records, str(position)]})

    @staticmethod
    def keys(name, concurrency, what):
        return {"name": name, "concurrency": concurrency, "input_buffer": 64, "batch": BATCH, "timeout": "0",
                "retry": {"min": "1ms", "max": "50ms"}, "max_crashes": 0, "restart": {"max_backoff": "100ms"}, **what}

    def configure(self, counts=None):
        """counts: events in all, by generating source; None: without end."""
        text = ""
        for id, chain in CHAINS.items():
            stages = [self.stage(id, number + 1, kind) for number, kind in enumerate(chain)]
            stages.append(self.keys(recorder.STAGE_NAME, 1, {"exec": recorder.command(self.sources[id].recorded)}))
            if id == "file":
                text += harness.file_source(id, self.lines, *stages, backlog={"max_events": BACKLOG}) + "\n"
            else:
                text += "- " + json.dumps({
                    "id": id, "type": "generate", "size": 60, "count": counts[id] if counts else 0, "stages": stages,
                    "backlog": {"max_events": 0 if counts else BACKLOG}}) + "\n"
        self.instance.configure(text)

    def keep_running(self):
        """Starts the daemon again when it is gone, which only a fault may explain."""
        self.daemon.was_up = self.daemon.was_up or self.at_work()
        self.daemon.watch()
        self.instance.daemon = self.daemon.process
        equal(self.daemon.unexpected, [], "ends of the daemon that no fault explains; seed %d" % SEED)

    def at_work(self):
        """Whether an event has come through since the start: by this start, and not what the last one left."""
        return any(source.reached_by(self.injector.start) for source in self.sources.values())

    # ---- the faults

    def feed(self):
        ahead = self.sources["file"].fetched + AHEAD
        if self.written < ahead:
            harness.append(self.lines, *({"id": "line-%d" % n} for n in range(self.written + 1, ahead + 1)))
            self.written = ahead

    def look(self):
        if calls.look(self.instance.database, self.sources):
            self.looks += 1
            self.feed()

    def size(self):
        return sum(source.size() for source in self.sources.values())

    def breathe(self):
        """Lets stages that stood still under many faults show that they go on."""
        seen = self.size()
        if seen > self.seen:
            self.seen, self.faults_then = seen, self.injector.injected.total()
        elif self.injector.injected.total() - self.faults_then > PATIENT_FAULTS:
            self.pause(lambda: self.size() > seen, "a call between faults")

    def pause(self, condition, what):
        """Waits without faults."""
        def turn():
            self.injector.resume()
            self.keep_running()
            processes.reap(but=self.daemon.pid)
            return condition()
        wait_for(turn, lambda: "%s; seed %d, log: %s" % (what, SEED, self.instance.log_text()[-3000:]))

    def hard_fault(self, kind, choice):
        """A fault that ends the whole daemon, once it has recovered from the last one."""
        if kind == "shutdown":
            self.daemon.ask_to_stop()  # other faults go on meanwhile
            self.injector.injected["shutdown"] += 1
        else:
            self.daemon.kill(kind == "instance", choice)
            self.keep_running()

    def inject_faults(self):
        plan, hard = faults.plan(SEED, PROFILE), random.Random(SEED + 1)
        end = time.monotonic() + SECONDS
        look_at, hard_at, kinds = 0, time.monotonic() + 1, 0
        while time.monotonic() < end or kinds < len(HARD):
            fault = next(plan)
            time.sleep(fault.pause_s)  # the storm's own pace
            self.injector.resume()
            self.keep_running()
            processes.reap(but=self.daemon.pid)
            now = time.monotonic()
            if now >= hard_at and not self.daemon.stopping and self.at_work():
                self.hard_fault(HARD[kinds % len(HARD)], hard.random())
                kinds += 1
                hard_at = now + hard.uniform(2, 6) * min(1, SECONDS / 20)
                continue
            self.injector.inject(fault, self.daemon.pid)
            if now >= look_at:
                self.look()
                self.breathe()
                look_at = now + 0.3

    def drain(self):
        """No faults any more: stopped gracefully, started with an end to the sources, and waited for."""
        began = time.monotonic()
        self.injector.resume(everything=True)
        self.pause(lambda: not self.daemon.stopping and self.at_work(), "an event to come through after the faults")
        self.stop()
        fetched = dict(self.instance.query("SELECT name, fetched FROM source"))
        check(fetched["file"] <= self.written, "lines that were fetched")
        self.configure(fetched)
        self.daemon.start()
        self.instance.daemon = self.daemon.process
        counts = dict(fetched, file=self.written)
        for id, count in counts.items():
            self.instance.wait_source(lambda s: s["fetched"] >= count and s["ready"] + s["running"] + s["delayed"] == 0,
                                      "%s to be drained; seed %d" % (id, SEED), id)
        self.drain_ms = int(1000 * (time.monotonic() - began))
        self.stop()
        return counts

    def stop(self):
        self.daemon.stop(harness.PATIENCE)
        check(self.daemon.ended_cleanly, "a graceful shutdown; the log: " + self.daemon.log_tail())
        self.instance.daemon = None

    # ---- in the end

    def nothing_left(self):
        wait_for(lambda: not processes.reap(), lambda: "every process to be gone: %s" % processes.names_of_descendants())
        # The lock's file stays, and no process holds it.
        equal(sorted(os.listdir(self.instance.directory)), ["config.yaml", "log", "store.db", "store.db.lock"], "files left")
        with open(self.instance.database + ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def count(self, counts):
        """By the accounting of `eventpipe chaos`."""
        snapshot = store.read(self.instance.database, with_events=True)
        equal(snapshot.events, [], "events left in the store; seed %d" % SEED)
        found = []
        for id, count in counts.items():
            equal(snapshot.sources[id], store.SourceTotals(fetched=count, completed=count), "the store's totals of " + id)
            source = accounting.SourceCount(id, count, snapshot.sources[id])
            accounting.count(source, calls.number_of, snapshot.events, recorder.read(self.sources[id].recorded))
            equal((source.recorded, source.unknown), (count, 0), "events that came to the recorder of " + id)
            found.append(source)
        for table in ("event", "progress", "suspended"):
            equal(self.instance.query("SELECT count(*) FROM " + table), [(0,)], "rows left in " + table)
        equal(self.instance.query("SELECT sum(duplicates) FROM source"), [(0,)], "events that were fetched twice")
        return found

    def report(self, found):
        """The report of `eventpipe chaos`, which must find nothing wrong."""
        result = report.Result(
            SEED, int(SECONDS * 1000), self.drain_ms, self.injector.injected, found, self.daemon.unexpected, self.daemon.ended_cleanly,
            processes.names_of_descendants(), os.path.exists("/dev/shm/eventpipe-" + self.instance.name),
            os.path.exists(self.instance.socket), [line["problem"] for line in self.instance.lines("check")])
        print(report.as_text(result))
        equal(report.problems(result), [], "what the report finds wrong; seed %d" % SEED)

    def crashes(self):
        """How many crashes the log has. Each must be of a process that a fault killed."""
        logged = LOG_CRASH.findall(self.instance.log_text())
        killed = {pid for _, pid in self.injector.process_kills}
        equal([pid for pid in logged if int(pid) not in killed], [], "crashes that no fault explains; seed %d" % SEED)
        return len(logged)

    def prove(self, counts, crashes):
        proof = calls.Proof(self.injector, BATCH)
        for id, count in counts.items():
            proof.source(self.sources[id], count)
        tally = proof.tally
        print("supervisor: %d starts, %d ended by a kill, %d found the store held; %d crashes in the log; %d looks into the store"
              % (self.injector.start, len(self.injector.supervisor_kills), self.daemon.found_held, crashes, self.looks))
        print("%d events, %d calls, %d put off, %d repeated after %d kills of workers, its last %d at most; %d kills in all"
              % (tally["events"], tally["calls"], tally["put off"], tally["repeated"], len(proof.followed_kills),
                 proof.most, self.injector.kills()))
        print("called up to %.1f ms after their kill; %d calls after a commit by what was dying, %.1f ms at most"
              % (max(0, proof.longest_run_on) / 1e6, tally["late"], proof.longest_late / 1e6))
        wrong = {kind: tally[kind] for kind in ("lost", "after commit", "unexplained", "unknown")}
        print("wrong: %s" % wrong)
        equal(sum(wrong.values()), 0, "wrong calls, seed %d: %s\n%s" % (SEED, wrong, "\n".join(proof.faults)))

    def run(self):
        print("seed %d" % SEED, flush=True)
        processes.adopt_orphans()
        self.configure()
        self.feed()
        self.daemon.start()
        self.instance.daemon = self.daemon.process
        self.pause(self.at_work, "the first event to come through")
        self.inject_faults()
        counts = self.drain()
        self.nothing_left()
        crashes = self.crashes()
        self.report(self.count(counts))
        self.prove(counts, crashes)


Storm().run()
finish()
