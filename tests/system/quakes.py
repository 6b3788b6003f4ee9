# SPDX-License-Identifier: MIT
"""Real earthquakes through four stages while processes are killed: what quakes_file.py and quakes_http.py share.

    locate (exec, Python, x4) -> classify (plugin) -> filter (exec, shell with jq) -> deliver (http, x4) -> collector.py

The feed is handed out a piece at a time, and at a random moment of each piece a worker or the producer gets a SIGKILL;
in between the collector refuses for a while and the daemon itself is killed once. In the end everything is counted.
The seed is printed; QUAKES_SEED repeats a run.
"""
import collections
import json
import os
import random
import re
import signal
import urllib.request

import harness
from harness import check, equal, wait_for

DATA = os.path.join(harness.SHARED, "data", "earthquakes.jsonl")
SEED = int(os.environ.get("QUAKES_SEED") or random.SystemRandom().randrange(1 << 32))
MADE_UP = 1500  # events, where the real ones are not at hand
WORKER_KILLS, PRODUCER_KILLS = 19, 5
BATCH = 20  # answers that deliver commits together: what a kill can make run again
REFUSALS = 40  # POSTs refused with 503

STAGES = """
  stages:
    - name: locate
      exec: [python3, {examples}/quakes_locate.py]
      concurrency: 4
      retry: {{min: 100ms, max: 500ms}}
      restart: {{max_backoff: 1s}}
      max_crashes: 20
    - name: classify
      plugin: {plugins}/plugin_classify.so
      retry: {{min: 100ms, max: 500ms}}
      restart: {{max_backoff: 1s}}
      max_crashes: 20
    - name: filter
      exec: [{examples}/quakes_filter.sh]
      retry: {{min: 100ms, max: 500ms}}
      restart: {{max_backoff: 1s}}
      max_crashes: 20
    - name: deliver
      url: {collector}
      concurrency: 4
      batch: {batch}
      retry: {{min: 200ms, max: 2s}}
      restart: {{max_backoff: 1s}}
      max_crashes: 20
"""
STAGE_NAMES = ["locate", "classify", "filter", "deliver"]


# ---- the events, and what must come of them

def made_up(count):
    """Earthquakes as the real feed has them, drawn with a fixed seed."""
    rng = random.Random(20180607)
    towns = ("Aguanga, CA", "Cold Springs, Nevada", "Kīlauea, Hawaii", "Anchor Point, Alaska", "Iquique, Chile")
    places = ["%dkm %s of %s" % (rng.randrange(1, 90), rng.choice(["N", "SSW", "ENE"]), town) for town in towns]
    places += ["South of Panama", "Carlsberg Ridge"]
    lines = []
    for number in range(count):
        net = rng.choice(["hv"] * 6 + ["nc", "ci", "ak", "us"])
        magnitude = None if rng.random() < 0.002 else round(max(-0.4, rng.gauss(1.8, 1.1)), 2)
        spot = [rng.uniform(-180, 180), rng.uniform(-90, 90), rng.uniform(0, 90)]
        quake = {"type": "Feature",
                 "properties": {"mag": magnitude, "place": rng.choice(places), "time": 1528363343200 + number * 137017,
                                "net": net, "code": "%08d" % number, "rms": rng.random(), "type": "earthquake"},
                 "geometry": {"type": "Point", "coordinates": spot},
                 "id": "%s%08d" % (net, number)}
        lines.append(json.dumps(quake, separators=(",", ":"), ensure_ascii=False))
    return lines


def load():
    """The lines of the feed; says which."""
    if os.path.exists(DATA):
        with open(DATA, encoding="utf-8") as file:
            lines = file.read().splitlines()
        equal(len(lines), 4711, "lines of " + DATA)
        print("%d real earthquakes" % len(lines))
    else:
        lines = made_up(MADE_UP)
        print("no %s: %d made-up earthquakes" % (DATA, len(lines)))
    print("seed %d" % SEED, flush=True)
    return lines


def class_of(magnitude):
    if magnitude is None:
        return "unknown"
    names = [(8.0, "great"), (7.0, "major"), (6.0, "strong"), (5.0, "moderate"), (4.0, "light"), (2.0, "minor")]
    return next((name for least, name in names if magnitude >= least), "micro")


def expected(lines):
    """By uid: the line and the context that must arrive at the collector."""
    found = {}
    for line in lines:
        quake = json.loads(line)
        magnitude, place = quake["properties"]["mag"], quake["properties"]["place"] or ""
        if magnitude is None or magnitude >= 1.0:
            region = place.split(",")[-1].strip()
            found[quake["id"]] = (line, {"magnitude": magnitude, "region": region, "class": class_of(magnitude)})
    return found


# ---- processes

def process_table():
    """pid: (state, parent, group) of every process."""
    table = {}
    for name in os.listdir("/proc"):
        try:
            with open("/proc/%s/stat" % int(name)) as file:
                state, parent, group = file.read().rpartition(")")[2].split()[:3]
            table[int(name)] = (state, int(parent), int(group))
        except (ValueError, OSError):
            pass
    return table


def living(pids):
    table = process_table()
    return [pid for pid in pids if pid in table and table[pid][0] not in "ZX"]


def process_tree(daemon):
    """The daemon, its children, and all that is in a child's process group."""
    table = process_table()
    children = {pid for pid, (_, parent, _) in table.items() if parent == daemon}
    return {daemon} | children | {pid for pid, (_, _, group) in table.items() if group in children}


# ---- the run

class Collector(harness.Helper):
    def __init__(self):
        self.path = os.path.join(harness.DIRECTORY, "collected")
        super().__init__("collector.py", self.path)

    def control(self, orders=None):
        data = None if orders is None else json.dumps(orders).encode()
        with urllib.request.urlopen(self.url("/control"), data, 30) as answer:
            return json.loads(answer.read() or b"null")

    def calls(self):
        with open(self.path, encoding="utf-8") as file:
            return [(line, json.loads(line)) for line in file]


class Quakes:
    """One run. feed: an object with `source` (YAML of the source up to its stages), `show(count, piece)` (so many events
    exist from now on), `count` (how many do, at least) and `while_down()` (called while the daemon is dead)."""

    def __init__(self, lines):
        self.lines = lines
        self.rng = random.Random(SEED)
        self.collector = Collector()
        self.instance = harness.Instance()
        self.killed = []  # (place, pid)
        self.daemon_crashes = 0

    def configure(self, source):
        self.instance.configure(source + STAGES.format(examples=harness.EXAMPLES, plugins=harness.PLUGINS, batch=BATCH,
                                                       collector=self.collector.url("/quakes")))

    def kill_one(self, place, known):
        """SIGKILLs a worker of a stage, or the producer: at once one of those that were known, if one is there."""
        def strike():
            pids = known.get(place) or self.processes()[place]
            known.clear()
            pids = living(pid for pid in pids if (place, pid) not in self.killed)
            if not pids:
                return False
            pid = self.rng.choice(pids)
            os.kill(pid, signal.SIGKILL)
            self.killed.append((place, pid))
            return True
        wait_for(strike, "a living process of %s" % place)

    def processes(self):
        """The pids of the producer and of each stage's workers."""
        source = self.instance.source()
        found = {stage["name"]: [worker["pid"] for worker in stage["workers"]] for stage in source["stages"]}
        found["producer"] = [source["producer"]["pid"]]
        return {place: [pid for pid in pids if pid] for place, pids in found.items()}

    def kill_daemon(self):
        """Without a word of warning; all others of the instance must follow. What the store then holds adds up."""
        def whole():  # what was killed a moment ago may not be back yet
            members = process_tree(self.instance.daemon.pid)
            return members if len(members) >= 13 else None
        members = wait_for(whole, "a supervisor, a producer, a keeper and 10 workers")
        self.instance.daemon.kill()
        self.instance.daemon.wait()
        wait_for(lambda: not living(members), lambda: "the instance to end, alive: %s" % living(members))
        self.daemon_crashes += 1
        done = self.instance.run("status", "--json")
        equal(done.returncode, 3, "exit status of `status` while the daemon is down")
        status = json.loads(done.stdout)
        equal(status["health"], "down", "health while the daemon is down")
        self.adds_up(status["sources"][0], "while the daemon is down")

    def adds_up(self, source, when):
        waiting = source["ready"] + source["running"] + source["delayed"] + source["held"]
        removed = sum(stage["removed"] for stage in source["stages"])
        message = "%s: %s" % (when, harness.unreadable({k: v for k, v in source.items() if k != "stages"}))
        completed = source["stages"][-1]["processed"]
        equal(source["fetched"], completed + removed + source["dead"] + waiting, "fetched " + message)
        equal(source["completed"], completed, "completed " + message)
        equal(source["removed_by_stage"], removed, "removed " + message)
        return waiting

    def progress(self, place):
        """Grows with each commit of a stage or of the producer, or with each POST; looked at in the store itself."""
        if place == "deliver":
            return self.collector.control()["posts"]
        if place == "producer":
            return self.instance.query("SELECT fetched FROM source")[0][0]
        return self.instance.query("SELECT processed + removed FROM stage WHERE name = ?", place)[0][0]

    def refuse(self):
        """The collector answers 503 until enough have been refused; events wait for it meanwhile."""
        self.collector.control({"status": 503, "reason": "Not Now"})
        self.refused_from = self.collector.control()["posts"]

    def accept(self):
        wait_for(lambda: self.collector.control()["posts"] >= self.refused_from + REFUSALS, "refused POSTs")
        delayed = self.instance.wait_source(lambda s: s["delayed"] > 0, "events that wait for the collector")["delayed"]
        recorded = self.collector.control()["recorded"]
        print("503 refused %d POSTs, %d events wait" % (self.collector.control()["posts"] - self.refused_from, delayed))
        self.collector.control({})
        wait_for(lambda: self.collector.control()["recorded"] > recorded, "the first POST after the refusals")

    def piece(self, feed, number, place):
        """Makes more of the feed known, and kills when a random part of that has come to the place."""
        pieces = WORKER_KILLS + PRODUCER_KILLS
        share = len(self.lines) * (number + 1) // pieces
        begin, known = self.progress(place), self.processes()
        enough = begin + self.rng.randrange(len(self.lines) * 2 // (3 * pieces))
        feed.show(share if number == pieces - 1 else share - self.rng.randrange(40), number)
        wait_for(lambda: self.progress(place) >= enough or self.is_calm(feed.count), "%s to go on" % place)
        self.kill_one(place, known)

    def is_calm(self, count):
        """Whether all that the feed has shown is fetched and through, or waits for the collector."""
        source = self.instance.source()
        return source["running"] + source["ready"] == 0 and source["fetched"] >= count

    def drive(self, feed):
        """Hands out the feed in pieces, with a kill in each."""
        places = ["producer"] * PRODUCER_KILLS + [STAGE_NAMES[i % 4] for i in range(WORKER_KILLS)]
        self.rng.shuffle(places)
        pieces = len(places)
        self.instance.start()
        for number, place in enumerate(places):
            if number == pieces // 3:
                self.refuse()
            self.piece(feed, number, place)
            if number == pieces // 3 + 3:
                self.accept()
            if number == pieces * 2 // 3:
                self.kill_daemon()
                feed.while_down()
                self.instance.start()
        self.instance.wait_empty(len(self.lines))
        wait_for(lambda: self.instance.status()["health"] == "ok",
                 lambda: "health ok, but: %s" % self.instance.status()["reasons"])

    # ---- the end

    def check_status(self, wanted):
        total, low = len(self.lines), len(self.lines) - len(wanted)
        source = self.instance.source()
        equal(self.adds_up(source, "at the end"), 0, "waiting events")
        equal([source[name] for name in ("fetched", "duplicates", "dead", "completed", "removed_by_stage")],
              [total, 0, 0, len(wanted), low], "fetched, duplicates, dead, completed, removed")
        answers = {stage["name"]: (stage["processed"], stage["removed"]) for stage in source["stages"]}
        equal(answers, {"locate": (total, 0), "classify": (total, 0), "filter": (len(wanted), low),
                        "deliver": (len(wanted), 0)}, "processed, removed by the stages")
        failed = source["stages"][3]["failed"]
        check(failed >= REFUSALS, "%d failed answers in deliver, at least %d were refused" % (failed, REFUSALS))
        crashed = sum(stage["crashed"] for stage in source["stages"])
        check(crashed <= WORKER_KILLS + 10, "%d events blamed for %d kills" % (crashed, WORKER_KILLS))
        print("%d kills hit an event being processed" % crashed)
        equal(self.instance.run("status").returncode, 0, "exit status of `status`")

    def check_collected(self, wanted):
        calls = self.collector.calls()
        uids = collections.Counter(call["event"]["uid"] for _, call in calls)
        missing, strange = set(wanted) - set(uids), set(uids) - set(wanted)
        check(not missing, "%d events never came to the collector: %s" % (len(missing), sorted(missing)[:5]))
        check(not strange, "%d events should not have come to the collector: %s" % (len(strange), sorted(strange)[:5]))
        for text, call in calls:
            uid = call["event"]["uid"]
            line, context = wanted[uid]
            equal(call["context"], context, "context of " + uid)
            check(line in text, "the payload of %s is not what was fetched, byte for byte: %s" % (uid, text))
            equal(call["key"], "quakes/%s/deliver" % uid, "key of " + uid)
            equal(call["event"]["address"], json.loads(line)["properties"]["net"], "address of " + uid)
        last = self.collector.control()["last"]
        equal(last["headers"]["Idempotency-Key"], json.loads(last["body"])["key"], "Idempotency-Key")
        # Only who was killed after its POST was answered and before its commit can have posted twice.
        doubled = sum(uids.values()) - len(uids)
        blamed = sum(place == "deliver" for place, _ in self.killed) + 4 * self.daemon_crashes
        check(doubled <= blamed * BATCH, "%d doubled POSTs, but only %d crashes with at most %d open answers each"
              % (doubled, blamed, BATCH))
        print("%d POSTs doubled by %d crashes in deliver" % (doubled, blamed))

    def check_store(self):
        for command in (["queue"], ["queue", "--json"]):
            done = self.instance.run(*command)
            equal((done.stdout, done.returncode), ("", 0), "what %s prints, and its exit status" % " ".join(command))
        done = self.instance.run("queue", "ALL")
        equal((done.stdout, done.returncode), ("", 4), "what `queue ALL` prints, and its exit status")
        equal(self.instance.run("check").returncode, 0, "exit status of `check`")
        for table in ("event", "progress", "suspended"):
            equal(self.instance.query("SELECT count(*) FROM " + table), [(0,)], "rows in the table " + table)

    def check_stopped(self):
        members = process_tree(self.instance.daemon.pid)
        segment = "/dev/shm/eventpipe-" + self.instance.name
        check(os.path.exists(segment), "no segment at %s" % segment)
        self.instance.stop()
        wait_for(lambda: not living(members), lambda: "the instance to end, alive: %s" % living(members))
        for path in (segment, self.instance.socket, self.instance.database + "-wal"):
            check(not os.path.exists(path), "left behind: " + path)

    def check_log(self):
        """No process crashed but those that were killed, and no sanitizer had anything to say."""
        log = self.instance.log_text()
        crashed = set(map(int, re.findall(r" crash process=.* pid=(\d+) ", log)))
        check(crashed and crashed <= {pid for _, pid in self.killed}, "crashes that were no kills: %s"
              % sorted(crashed - {pid for _, pid in self.killed}))
        check("Sanitizer" not in log and "runtime error" not in log, "a sanitizer's report in the log")

    def finish(self):
        wanted = expected(self.lines)
        check(0 < len(wanted) < len(self.lines), "some events are removed, some are not")
        kills = collections.Counter(place for place, _ in self.killed)
        check(sum(kills.values()) >= 20 and len(kills) == 5 and self.daemon_crashes == 1, "kills: %s" % kills)
        print("killed: %s, the daemon 1" % ", ".join("%s %d" % kill for kill in sorted(kills.items())))
        self.check_status(wanted)
        self.check_collected(wanted)
        self.check_store()
        self.check_stopped()
        self.check_log()
        harness.finish()


def run(make_feed):
    lines = load()
    quakes = Quakes(lines)
    feed = make_feed(lines, quakes.rng)
    quakes.configure(feed.source)
    try:
        quakes.drive(feed)
        quakes.finish()
    except Exception:
        print("seed %d; the end of the daemon's log:\n%s" % (SEED, quakes.instance.log_text()[-4000:]))
        raise
