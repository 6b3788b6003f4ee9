#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The storm: three sources of four stages with four workers each, programs and plugins mixed, at full speed, while a
killer kills or stops workers, co-processes, producers and the keeper every 5 to 50 ms, and now and then the supervisor or
the whole family, which is then started again as a service manager would. In the end every event came out, none came to a
stage after its commit, no more calls were repeated than the kills explain, and nothing is left over.

STORM_SECONDS is how long (20; 300 is the long form, with TEST_TIMEOUT=0), STORM_SEED decides which blows fall.
"""
import fcntl
import json
import os
import random
import re
import signal
import sys
import time

import harness
import storm_rig as rig
from harness import check, equal, finish, wait_for

SECONDS = float(os.environ.get("STORM_SECONDS", "20"))
SEED = int(os.environ.get("STORM_SEED", "1"))
BATCH = 50
BACKLOG = 2000
AHEAD = 3000  # lines that the file has more than are fetched
# Who is beaten so often without a pause may stand still; once the blows pause, it must go on.
PATIENT_BLOWS = 60
CHAINS = {"north": "cpcc", "south": "pccp", "file": "ccpc"}  # c: plugin, p: program


class Storm:
    def __init__(self):
        self.instance = harness.Instance()
        self.killer = rig.Killer()
        self.sources = {id: rig.Source(id, harness.DIRECTORY) for id in CHAINS}
        self.lines = os.path.join(harness.DIRECTORY, "lines")
        self.written = 0
        self.exec_stage = harness.script("storm_exec.py", rig.EXEC_STAGE)
        self.looks = self.held_off = 0
        self.seen = self.grown_blows = 0

    # ---- the instance, and what a service manager does for it

    def stage(self, id, position, kind):
        stage = {"name": "stage-%d" % position, "concurrency": 4, "input_buffer": 64, "batch": BATCH, "timeout": "0",
                 "retry": {"min": "1ms", "max": "50ms"}, "max_crashes": 0, "restart_max": "100ms"}
        witness = self.sources[id].files[position - 1]
        if kind == "c":
            stage["plugin"] = os.path.join(harness.BUILD, "tests", "system", "storm_stage.so")
            stage["options"] = {"witness": witness, "stage": position}
        else:
            stage["exec"] = [sys.executable, "-I", "-S", "-B", self.exec_stage, witness, str(position)]
        return stage

    def configure(self, counts=None):
        """counts: events in all, by generating source; None: without end."""
        sources = ""
        for id, chain in CHAINS.items():
            stages = [self.stage(id, number + 1, kind) for number, kind in enumerate(chain)]
            if id == "file":
                sources += harness.file_source(id, self.lines, *stages, backlog={"max_events": BACKLOG}) + "\n"
            else:
                sources += "- " + json.dumps({
                    "id": id, "type": "generate", "size": 60, "count": counts[id] if counts else 0, "stages": stages,
                    "backlog": {"max_events": 0 if counts else BACKLOG}}) + "\n"
        self.instance.configure(sources)

    def start(self):
        self.killer.start += 1
        self.instance.start(wait=False, environment={rig.START: str(self.killer.start)})

    def keep_running(self):
        """Starts the daemon again when it is gone. It may only be gone by a blow, or because the killed family held the
        store for longer than it waited."""
        status = self.instance.daemon.poll()
        if status is None:
            return
        if status == 1 and "held by" in self.instance.log_text()[-1000:]:
            self.held_off += 1
        elif self.stopping:
            equal(status, 0, "exit status after SIGTERM; the log: " + self.instance.log_text()[-2000:])
        else:
            equal(status, -signal.SIGKILL, "how the daemon ended; its log: " + self.instance.log_text()[-2000:])
        self.stopping = False
        self.start()

    def at_work(self):
        """Whether an event has come through since the start: by this family, and not what the last one left."""
        return any(source.reached_by(self.killer.start) for source in self.sources.values())

    # ---- the storm

    def feed(self):
        ahead = self.sources["file"].fetched + AHEAD
        if self.written < ahead:
            harness.append(self.lines, *({"id": "line-%d" % n} for n in range(self.written + 1, ahead + 1)))
            self.written = ahead

    def witness(self):
        if rig.look(self.instance.database, self.sources):
            self.looks += 1
            self.feed()

    def breathe(self):
        """Lets those who stood still under many blows show that they go on."""
        seen = sum(source.witnessed() for source in self.sources.values())
        if seen > self.seen:
            self.seen, self.grown_blows = seen, self.killer.dealt.total()
        elif self.killer.dealt.total() - self.grown_blows > PATIENT_BLOWS:
            self.pause(lambda: sum(source.witnessed() for source in self.sources.values()) > seen, "a call between blows")

    def pause(self, condition, what):
        """Waits without blows."""
        def look():
            self.killer.let_go()
            self.keep_running()
            rig.reap_orphans(self.instance.daemon.pid)
            return condition()
        wait_for(look, lambda: "%s; seed %d, log: %s" % (what, SEED, self.instance.log_text()[-3000:]))

    def hard_blow(self, kind, choice):
        """A blow to the supervisor or to all, once the last one is got over."""
        if kind == "supervisor":
            self.killer.kill_supervisor(self.instance.daemon)
        elif kind == "family":
            self.killer.kill_family(self.instance.daemon, choice)
        else:
            self.instance.daemon.send_signal(signal.SIGTERM)
            self.killer.dealt["stop in order"] += 1
            self.stopping = True
            return  # the blows go on meanwhile
        self.keep_running()

    def rage(self):
        blows, hard = rig.plan_of(SEED), random.Random(SEED + 1)
        end = time.monotonic() + SECONDS
        look_at, hard_at, kinds = 0, time.monotonic() + 1, 0
        while time.monotonic() < end or kinds < len(rig.HARD):
            blow = next(blows)
            time.sleep(blow.pause)  # the storm's own pace
            self.killer.let_go()
            self.keep_running()
            rig.reap_orphans(self.instance.daemon.pid)
            now = time.monotonic()
            if now >= hard_at and not self.stopping and self.at_work():
                self.hard_blow(rig.HARD[kinds % len(rig.HARD)], hard.random())
                kinds += 1
                hard_at = now + hard.uniform(2, 6) * min(1, SECONDS / 20)
                continue
            self.killer.deal(blow, self.instance.daemon.pid)
            if now >= look_at:
                self.witness()
                self.breathe()
                look_at = now + 0.3

    def drain(self):
        """No blows any more: stopped in order, started with an end to the sources, and waited for."""
        self.killer.let_go(everybody=True)
        self.pause(lambda: not self.stopping and self.at_work(), "the family to be at work after the storm")
        self.instance.stop()
        rig.reap_orphans(0)
        fetched = dict(self.instance.query("SELECT name, fetched FROM source"))
        check(fetched["file"] <= self.written, "lines that were fetched")
        self.configure(fetched)
        self.start()
        counts = dict(fetched, file=self.written)
        for id, count in counts.items():
            self.instance.wait_source(lambda s: s["fetched"] >= count and s["ready"] + s["running"] + s["delayed"] == 0,
                                      "%s to be drained; seed %d" % (id, SEED), id)
        self.instance.stop()
        return counts

    # ---- in the end

    def nothing_left(self):
        wait_for(lambda: not rig.reap_orphans(0), lambda: "every process to be gone: %s" % rig.family_of(os.getpid())[1:])
        check(not os.path.exists("/dev/shm/eventpipe-" + self.instance.name), "the segment is gone")
        # The lock's file stays, and is nobody's.
        equal(sorted(os.listdir(self.instance.directory)), ["config.yaml", "log", "store.db", "store.db.lock"], "files left")
        with open(self.instance.database + ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def all_came_through(self, counts):
        equal(self.instance.query("SELECT uid, state, reason, crashes, words FROM event JOIN parked USING (seq)"), [],
              "events set aside; seed %d" % SEED)
        for id, count in counts.items():
            equal(self.instance.query("SELECT fetched, finished, live, delayed, held, dead, duplicates FROM source "
                                      "WHERE name = ?", id), [(count, count, 0, 0, 0, 0, 0)], "the store's tally of " + id)
        for table in ("event", "progress", "parked"):
            equal(self.instance.query("SELECT count(*) FROM " + table), [(0,)], "rows left in " + table)
        equal(self.instance.run("check").returncode, 0, "exit status of check")

    def deaths(self):
        """Who died according to the log, and not by us."""
        told = re.findall(r'death process="[^"]*" pid=(\d+).*', self.instance.log_text())
        struck = {pid for _, pid in self.killer.process_kills}
        own = [pid for pid in told if int(pid) not in struck]
        equal(own, [], "deaths that no blow explains; seed %d" % SEED)
        return len(told)

    def reckon(self, counts, deaths):
        reckoning = rig.Reckoning(self.killer, BATCH)
        for id, count in counts.items():
            reckoning.source(self.sources[id], count)
        dealt, tally = self.killer.dealt, reckoning.tally
        print("seed %d, %.0f s: %d blows: %s" % (SEED, SECONDS, dealt.total(), ", ".join(
            "%s %d" % pair for pair in sorted(dealt.items()))))
        print("supervisor: %d starts, %d ended by a blow, %d found the store held; %d deaths in the log; %d looks into the store"
              % (self.killer.start, len(self.killer.supervisor_kills), self.held_off, deaths, self.looks))
        print("%d events, %d calls, %d put off, %d repeated after %d deaths of workers, its last %d at most; %d kills in all"
              % (tally["events"], tally["calls"], tally["put off"], tally["repeated"], len(reckoning.deaths),
                 reckoning.most, self.killer.kills()))
        print("called up to %.1f ms after their kill; %d calls after a commit by what was dying, %.1f ms at most"
              % (max(0, reckoning.longest_run_on) / 1e6, tally["late"], reckoning.longest_late / 1e6))
        faults = {kind: tally[kind] for kind in ("lost", "after commit", "unexplained", "strange")}
        print("faults: %s" % faults)
        equal(sum(faults.values()), 0, "faults, seed %d: %s\n%s" % (SEED, faults, "\n".join(reckoning.faults)))

    def run(self):
        print("seed %d" % SEED, flush=True)
        rig.adopt_orphans()
        self.stopping = False
        self.configure()
        self.feed()
        self.start()
        self.pause(self.at_work, "the first event to come through")
        self.rage()
        counts = self.drain()
        self.nothing_left()
        deaths = self.deaths()
        self.all_came_through(counts)
        self.reckon(counts, deaths)


Storm().run()
finish()
