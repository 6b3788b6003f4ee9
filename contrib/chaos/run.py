# SPDX-License-Identifier: MIT
"""A run from beginning to end: the daemon starts, events go in while faults are injected, the remaining events come through
without faults, the daemon shuts down, and the end of each event is counted.

It runs in a process with its own session and folder, which is the subreaper of everything it starts.
"""
import dataclasses
import json
import os
import random
import subprocess
import time

import accounting
import faults
import feed
import processes
import recorder
import report
import run_config
import store
from daemon import Daemon, RunFailed

TURN_S = 0.005
LOOK_S = 0.05  # between two looks at the store
STATUS_S = 0.1  # between two looks at the status
WINDOW_S = 0.5  # between two changes of how many events may be on their way
PATIENCE_S = 60  # without any progress, besides the longest timeout of a stage
DELAYED_S = 15  # without an event's end while all that is left was delayed by a stage
START_PATIENCE_S = 120
SUPERVISOR_PATIENCE_S = 30  # how much longer a run may last until the supervisor was killed once
LEAVING_S = 5  # for processes that are about to end
SUPERVISOR_PACE_S = 2  # between two kills of the supervisor, on average, at least
PROFILE = faults.Profile({"kill worker": 45, "kill program": 22, "kill producer": 8, "kill keeper": 5, "stop program": 5,
                          "stop worker": 5, "stop producer": 7, "stop supervisor": 3}, (0.010, 0.100), (0.020, 0.250))
# Variables by which a service manager would hear of the run's daemon
MANAGER_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


@dataclasses.dataclass
class Options:
    seconds: float
    events: int  # of each source; 0 = as many as its stages process
    seed: int
    sample: list[bytes]
    eventpipe: str
    eventpiped: str
    longest_timeout_s: float
    drain_timeout_s: float


class Source:
    """One source of the run."""

    def __init__(self, config: dict, index: int, places: run_config.Places, options: Options, payload_bytes: int):
        self.id = config["id"]
        self.stage_names = [stage["name"] for stage in config["stages"]]
        self.recorded = places.recorded(index)
        self.feed = feed.Feed(places.feed(index), options.sample, payload_bytes)
        self.fed = 0
        self.window = feed.WINDOW_MIN
        self.ended_before = 0
        self.calls = dict.fromkeys(self.stage_names, 0)  # in the starts of the daemon that are over
        self.calls_now = dict(self.calls)  # in the running one

    def room(self, totals: store.SourceTotals, next_window: bool) -> int:
        """How many events may go in now."""
        ended = totals.ended()
        if next_window:
            self.window = feed.window(self.window, ended - self.ended_before)
            self.ended_before = ended
        return max(0, self.window - (self.fed - ended))

    def write(self, events: int) -> None:
        self.feed.write(events)
        self.fed += events

    def begin_start(self) -> None:
        for name, calls in self.calls_now.items():
            self.calls[name] += calls
            self.calls_now[name] = 0


class Run:
    def __init__(self, user: dict, wanted: list[dict], payload_bytes: dict[str, int], places: run_config.Places,
                 options: Options):
        self.options, self.places = options, places
        config = run_config.configuration(user, wanted, places)
        with open(places.config, "x") as file:
            file.write(run_config.as_yaml(config))
        for name in (*MANAGER_VARIABLES, *run_config.unwanted_tokens(user, config)):
            os.environ.pop(name, None)
        self.sources = [Source(source, index, places, options, payload_bytes.get(source["id"], feed.PAYLOAD_BYTES))
                        for index, source in enumerate(wanted)]
        self.injector = faults.Injector(spare=True)
        self.daemon = Daemon([options.eventpiped, "-c", places.config], places.log, self.injector,
                             lambda start: {"EVENTPIPE_CHAOS": "1"})
        self.random = random.Random(options.seed + 1)
        self.looked = self.asked = self.windowed = self.started = 0.0
        self.last_progress = self.last_end = 0.0
        self.fetched = self.ended = self.left = self.stuck = self.delayed = self.calls = 0
        self.next_kill = 0.0  # of the supervisor

    # ---- what is going on

    def eventpipe(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([self.options.eventpipe, "-c", self.places.config, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=START_PATIENCE_S)

    def ask_status(self) -> None:
        """Whether the daemon is up, and how many calls its workers have answered."""
        answer = self.eventpipe("status", "--json").stdout
        self.asked = time.monotonic()
        status = json.loads(answer) if answer.strip() else {}
        if status.get("pid") != self.daemon.pid or status.get("phase") != "running":
            return
        if not self.daemon.was_up:
            self.daemon.was_up = True
            self.plan_supervisor_kill()
        for source, shown in zip(self.sources, status["sources"]):
            for stage in shown["stages"]:
                if stage["name"] in source.calls_now:
                    source.calls_now[stage["name"]] = sum(worker["calls"] for worker in stage["workers"])
                self.injector.work.update(("%s/%s[%d]" % (source.id, stage["name"], worker["worker"]), worker["calls"])
                                          for worker in stage["workers"])

    def look(self, limit: float) -> None:
        """Looks at the store and writes the events that may go in: up to `limit` of each source in all."""
        now = time.monotonic()
        snapshot = store.read(self.places.store, with_events=False)
        if snapshot is None or not all(source.id in snapshot.sources for source in self.sources):
            return
        next_window = now - self.windowed >= WINDOW_S
        self.looked, self.windowed = now, now if next_window else self.windowed
        before = (self.fetched, self.ended, self.calls)
        self.fetched = self.ended = self.left = self.stuck = self.delayed = 0
        for source in self.sources:
            totals = snapshot.sources[source.id]
            source.write(int(min(source.room(totals, next_window), max(0, limit - source.fed))))
            self.injector.work[source.id + " producer"] = totals.fetched
            self.fetched += totals.fetched
            self.ended += totals.ended()
            self.left += totals.live
            self.stuck += totals.held + totals.dead
            self.delayed += totals.delayed
        self.calls = sum(sum(source.calls_now.values()) for source in self.sources)
        if self.ended != before[1]:
            self.last_end = now
        if (self.fetched, self.ended, self.calls) != before:
            self.last_progress = now

    def turn(self, limit: float) -> None:
        if self.daemon.watch():
            self.began_start()
        processes.reap(but=self.daemon.pid)
        now = time.monotonic()
        if now - self.asked >= (STATUS_S if self.daemon.was_up else LOOK_S):
            self.ask_status()
        if self.daemon.was_up and now - self.looked >= LOOK_S:
            self.look(limit)
        self.injector.resume()
        if not self.daemon.was_up and now - self.begun > START_PATIENCE_S:
            raise RunFailed("the daemon does not come up; its last messages: " + self.daemon.log_tail())
        time.sleep(TURN_S)  # between two looks at everything

    def began_start(self) -> None:
        self.begun = time.monotonic()
        for source in self.sources:
            source.begin_start()

    # ---- its parts

    def plan_supervisor_kill(self) -> None:
        pace = max(self.options.seconds / 5, min(SUPERVISOR_PACE_S, self.options.seconds / 2))
        self.next_kill = time.monotonic() + self.random.uniform(pace / 2, pace * 3 / 2)

    def come_up(self) -> None:
        self.began_start()
        self.daemon.start()
        while not self.daemon.was_up:
            self.turn(0)

    def limit_now(self) -> float:
        """How many events of each source may have gone in by now: as many as were asked for, spread over the run."""
        if not self.options.events:
            return float("inf")
        passed = (time.monotonic() - self.started) / self.options.seconds
        return min(self.options.events, 1 + int(self.options.events * passed))

    def inject_faults(self) -> None:
        """For as long as was asked; on a machine that is busy with other things until the supervisor was killed once."""
        self.started = time.monotonic()
        end = self.started + self.options.seconds
        self.plan_supervisor_kill()
        plan = faults.plan(self.options.seed, PROFILE)
        fault = next(plan)
        due = self.started + fault.pause_s
        while time.monotonic() < end or (not (self.injector.supervisor_kills and self.fetched) and
                                         time.monotonic() < end + SUPERVISOR_PATIENCE_S):
            self.turn(self.limit_now())
            now = time.monotonic()
            if not self.daemon.was_up or now < due:
                continue
            if now >= self.next_kill:
                self.ask_status()  # the calls so far, which this start of the daemon takes along
                self.daemon.kill(self.random.random() < 1 / 3, self.random.random())
                self.began_start()
            else:
                self.injector.inject(fault, self.daemon.pid)
            fault = next(plan)
            due = time.monotonic() + fault.pause_s

    def drain(self) -> None:
        """The events left come through; until nothing moves any more."""
        self.injector.resume(everything=True)
        began = self.last_progress = self.last_end = time.monotonic()
        patience_s = PATIENCE_S + self.options.longest_timeout_s
        while True:
            self.turn(self.options.events)
            now = time.monotonic()
            if not self.daemon.was_up or self.looked < began:
                if now - began > patience_s and self.daemon.was_up:
                    raise RunFailed("the run's store cannot be read")
                continue
            # Not all may have gone in: a stage that delays every event keeps the rest out.
            all_fetched = self.fetched >= sum(source.fed for source in self.sources)
            all_fed = all(source.fed >= self.options.events for source in self.sources)
            if all_fed and all_fetched and self.left == self.stuck:
                break
            if all_fetched and self.left == self.stuck + self.delayed and now - self.last_end > DELAYED_S:
                break
            if now - self.last_progress > patience_s or now - self.last_end > 2 * patience_s:
                break
        self.ask_status()

    def wait_until_gone(self) -> list[str]:
        """Names of the processes that still run when they had time to end."""
        until = time.monotonic() + LEAVING_S
        while True:
            processes.reap()
            left = processes.names_of_descendants()
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.02)  # between two looks

    # ---- what came of it

    def count(self) -> list[accounting.SourceCount]:
        snapshot = store.read(self.places.store, with_events=True)
        if snapshot is None:
            raise RunFailed("the run's store cannot be read")
        counts = []
        for source in self.sources:
            stages = [accounting.StageCount(name, source.calls[name], snapshot.stages.get(
                (source.id, name), store.StageTotals())) for name in source.stage_names]
            count = accounting.SourceCount(source.id, source.fed, snapshot.sources.get(source.id, store.SourceTotals()),
                                           stages=stages)
            accounting.count(count, source.feed.number_of, snapshot.events, recorder.read(source.recorded))
            counts.append(count)
        return counts

    def check_store(self) -> list[str]:
        """The problems that `eventpipe check` finds in the store."""
        done = self.eventpipe("check", "--json")
        found = [json.loads(line) for line in done.stdout.splitlines()]
        problems = [line["problem"] for line in found if line.get("where") == "store"]
        return problems or (["it could not be checked: " + done.stderr.strip()] if done.returncode and not found else [])

    def run(self) -> report.Result:
        self.come_up()
        self.inject_faults()
        run_end = time.monotonic()
        self.drain()
        drain_end = time.monotonic()
        self.daemon.stop(START_PATIENCE_S + self.options.drain_timeout_s)
        self.began_start()  # the calls of the last start are complete
        left_running = self.wait_until_gone()
        processes.kill_children(START_PATIENCE_S)
        return report.Result(
            self.options.seed, int(1000 * (run_end - self.started)), int(1000 * (drain_end - run_end)),
            self.injector.injected, self.count(), self.daemon.unexpected, self.daemon.ended_cleanly, left_running,
            os.path.exists(self.places.segment), os.path.exists(self.places.control), self.check_store())
