# SPDX-License-Identifier: MIT
"""All earthquakes as Idefix events of ten devices, with each of the four encodings at once, while the broker is stopped
and started twice, the backend drops every 20th answer and the producers are killed five times. What
idefix_quakes_plain.py and idefix_quakes_tls.py share.

    a source for each encoding:  locate (exec, Python) -> classify (plugin) -> deliver (exec, Python: notes what came)

The events are handed out in pieces; in each piece, when a random part of it is fetched, something breaks.
"""
import collections
import json
import os
import random
import signal

import harness
import idefix
import quakes
from harness import check, equal, wait_for

ENCODINGS = ["mg", "m", "jg", "j"]
KILLS, OUTAGES, DROP_EVERY, PAGE = 5, 2, 20, 50
STAGES = ["locate", "classify", "deliver"]


class Run:
    def __init__(self, tls):
        self.lines = quakes.load()
        self.rng = random.Random(quakes.SEED)
        self.broker = idefix.Broker(tls=tls)
        self.backend = idefix.Simulator(self.broker, "--account", "%s:%s" % (idefix.ACCOUNT, idefix.TOKEN),
                                        "--order", "drop-every %d" % DROP_EVERY)
        self.instance = harness.Instance()
        self.delivered, self.killed, self.shown = {}, [], 0
        self.instance.configure("".join(self.source(encoding, tls) for encoding in ENCODINGS))

    def source(self, encoding, tls):
        script, self.delivered[encoding] = idefix.seeing_stage(
            "deliver-" + encoding, '    witness("context", event["uid"], context)')
        retry = {"retry": {"min": "100ms", "max": "500ms"}, "restart": {"max_backoff": "1s"}}
        locate = {"name": "locate", "exec": ["python3", os.path.join(harness.EXAMPLES, "quakes_locate.py")], **retry}
        classify = {"name": "classify", "plugin": os.path.join(harness.PLUGINS, "plugin_classify.so"), **retry}
        return idefix.idefix_source(encoding, self.broker, locate, classify, {"name": "deliver", "exec": [script], **retry},
                                    tls=tls, encoding=encoding, page_size=PAGE, long_poll="1s", response_timeout="500ms")

    def show(self, count):
        """So many events exist from now on."""
        path = os.path.join(harness.DIRECTORY, "piece-%d.jsonl" % count)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(idefix.quake_text(line) + "\n" for line in self.lines[self.shown:count])
        self.backend.command("events " + path)
        self.shown = count

    def kill_producers(self):
        """Of all sources at once."""
        pids = wait_for(lambda: (lambda pids: pids if len(pids) == 4 and not set(pids) & set(self.killed) else None)(
            self.instance.producers()), "four producers that live")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.killed += pids

    def outage(self):
        """The broker goes, the status says so, the broker comes back."""
        self.broker.stop()
        self.backend.wait_lost()

        def shown():
            status = self.instance.status()
            sources = status["sources"]
            failing = all(source["error"] and "onnection" in source["error"] and str(self.port()) in source["error"]
                          and source["failures"] > 0 for source in sources)
            return status if failing and status["health"] == "degraded" else None
        status = wait_for(shown, lambda: "the outage in the status: %s" % harness.unreadable(self.instance.status()))
        for source in status["sources"]:
            check(any(source["id"] in reason and source["error"] in reason for reason in status["reasons"]),
                  "%s is among the reasons: %s" % (source["id"], status["reasons"]))
        # Between two looks the message may change from `lost` to `no connection`; both name the broker.
        text = self.instance.run("status")
        equal(text.returncode, 1, "exit status of `status` during an outage: " + text.stdout)
        check(text.stdout.count("onnection to ") >= 4, "the text names the reason for each source: " + text.stdout)
        print("outage: " + status["sources"][0]["error"], flush=True)
        self.broker.start()
        self.backend.wait_ready()

    def port(self):
        return self.broker.tls_port or self.broker.port

    def drive(self):
        breaks = [self.kill_producers] * KILLS + [self.outage] * OUTAGES
        self.rng.shuffle(breaks)
        self.instance.start()
        for number, strike in enumerate(breaks):
            begin, piece = 4 * self.shown, len(self.lines) // (len(breaks) + 1)
            self.show(self.shown + piece)
            part = begin + self.rng.randrange(piece * 4 * 2 // 3)
            wait_for(lambda: idefix.fetched(self.instance) >= part, lambda: "%d events fetched: %s; the log: %s" % (
                part, harness.unreadable(self.instance.status()), self.instance.log_text()[-1500:]))
            strike()
        self.show(len(self.lines))
        for encoding in ENCODINGS:
            self.instance.wait_empty(len(self.lines), encoding)
        wait_for(lambda: self.instance.status()["health"] == "ok",
                 lambda: "health ok, but: %s" % self.instance.status()["reasons"])

    def check_source(self, encoding, wanted):
        total = len(self.lines)
        source = self.instance.source(encoding)
        # A killed producer may have been given a page that it did not store: it comes again. What is stored is stored with
        # its cursor, so nothing ever comes twice.
        equal([source[name] for name in ("fetched", "duplicates", "dead", "completed", "removed_by_stage")],
              [total, 0, 0, total, 0],
              encoding + ": fetched, duplicates, dead, completed, removed")
        equal([stage["processed"] for stage in source["stages"]], [total] * 3, encoding + ": processed by the stages")
        notes = self.delivered[encoding]()
        events = [call[1] for call in notes if call[0] == "event"]
        contexts = {call[1]: call[2] for call in notes if call[0] == "context"}
        idefix.uids_once(events, wanted, encoding)
        for event in events:
            line, context = wanted[event["uid"]]
            equal(event["payload"], json.loads(line), "%s: payload of %s" % (encoding, event["uid"]))
            equal(event["address"], idefix.device_of(event["uid"]), "%s: device of %s" % (encoding, event["uid"]))
            equal(contexts[event["uid"]], context, "%s: context of %s" % (encoding, event["uid"]))

    def finish(self):
        equal(len(self.killed), 4 * KILLS, "kills")
        wanted = {}
        for line in self.lines:
            properties = json.loads(line)["properties"]
            place = properties["place"] or ""
            wanted[json.loads(line)["id"]] = (line, {"magnitude": properties["mag"], "region": place.split(",")[-1].strip(),
                                                     "class": quakes.class_of(properties["mag"])})
        for encoding in ENCODINGS:
            self.check_source(encoding, wanted)
        stats = self.backend.stats()
        check(stats["dropped"] >= 4 * len(self.lines) // PAGE // DROP_EVERY, "dropped answers: %s" % stats)
        flags = collections.Counter(request["flags"] for request in self.backend.requests())
        check(set(ENCODINGS) >= set(flags) and len(flags) >= 3, "what requests were written in: %s" % flags)
        print("%d answers, %d dropped, %d logins; killed %d producers" % (stats["answers"], stats["dropped"],
                                                                         stats["logins"], len(self.killed)))
        self.instance.stop()
        idefix.check_logs(self.backend, self.instance)
        harness.finish()


def run(tls):
    run = Run(tls)
    try:
        run.drive()
        run.finish()
    except Exception:
        print("seed %d; the end of the daemon's log:\n%s" % (quakes.SEED, run.instance.log_text()[-4000:]))
        raise
