# SPDX-License-Identifier: MIT
"""`eventpipe status`: as JSON with every member that the design promises, and sums that add up; as text that says at
its top whether all is well; --watch; its exit statuses, while the daemon runs, after it was killed, and after it
has ended."""
import json
import os
import re
import signal
import subprocess

from harness import BUILD, DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, wait_for

# The members of the design, in its own words.
PROMISED = """{"instance","version","pid","uptime_s","health","reasons":[],"store":{"url","bytes","wal_bytes"},
"sources":[{"id","type","state","cursor","error","fetched","duplicates","ready","running","delayed","held","dead",
"oldest_s","producer":{"pid","restarts"},"stages":[{"name","state","concurrency","queue","answers","processed","retried",
"removed","rejected","failed","crashed","restarts","latency_us":{"p50","p99"},
"workers":[{"slot","pid","state","event","since_ms","restarts"}]}]}]}"""

BODY = '''
    kind = event["payload"]["kind"]
    while kind == "busy" and not os.path.exists(__file__ + ".finish"):
        signal.sigtimedwait([signal.SIGCHLD], 0.02)
    if kind in ("later", "held"):
        answer = {"processed": False, "retry_after": "1h"}
    if kind == "remove":
        answer = {"remove": True}
    if kind == "reject":
        answer = {"reject": "no"}
'''


def promised():
    """The same as values: a name alone stands for any value."""
    text = re.sub(r'("\w+")(?=[,}])', r'\1:null', PROMISED)
    return json.loads(text)


def missing(promise, found, where=""):
    """Members that are promised and not there. A list may be empty: who calls sees to it that none is."""
    if isinstance(promise, dict):
        if not isinstance(found, dict):
            return [where]
        return [path for name in promise
                for path in ([where + "." + name] if name not in found
                             else missing(promise[name], found[name], where + "." + name))]
    if isinstance(promise, list):
        if not isinstance(found, list):
            return [where]
        return [path for item in found for path in (missing(promise[0], item, where + "[]") if promise else [])]
    return []


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, _ = python_stage("work", BODY)
    instance.configure(file_source("lines", lines, {"name": "work", "exec": [stage], "concurrency": 2},
                                   {"name": "then", "exec": [stage]}))
    done = instance.run("status")
    equal(done.returncode, 3, "exit status before there is anything")
    check("DOWN" in done.stdout.split("\n")[0] and "there is no store" in done.stdout, "it says so: " + done.stdout)

    kinds = ["good"] * 20 + ["remove"] * 3 + ["reject"] * 2 + ["later"] * 4 + ["held"]
    append(lines, *({"id": "%s-%d" % (kind, i), "kind": kind} for i, kind in enumerate(kinds)))
    instance.start()
    instance.wait_source(lambda s: s["fetched"] == 30 and s["delayed"] == 5 and s["completed"] == 20,
                         "all as it shall be")
    equal(instance.run("hold", "held-29").returncode, 0, "hold")
    append(lines, {"id": "busy", "kind": "busy"}, {"id": "good-31", "kind": "good"}, {"id": "good-30", "kind": "good"})
    source = instance.wait_source(lambda s: s["held"] == 1 and s["running"] == 1 and s["completed"] == 22,
                                  "one held, one running")
    status = instance.status()
    equal(missing(promised(), status), [], "members that the design promises and status has not")
    equal((status["instance"], status["pid"], status["store"]["url"]),
          (instance.name, instance.daemon.pid, instance.storage), "who")
    check(status["store"]["bytes"] > 0, "size of the store")
    equal((source["ready"], source["running"], source["delayed"], source["held"], source["dead"]), (0, 1, 4, 1, 2),
          "where events are")
    equal(source["fetched"], source["completed"] + source["removed_by_stage"] + source["removed_by_operator"] + source["live"],
          "fetched adds up")
    equal(source["live"], source["ready"] + source["running"] + source["delayed"] + source["held"] + source["dead"],
          "live adds up")
    first = source["stages"][0]
    equal(len(first["workers"]), 2, "workers shown")
    equal((first["answers"], first["processed"], first["removed"], first["rejected"], first["retried"]), (32, 22, 3, 2, 5),
          "stage")
    check(0 < first["latency_us"]["p50"] <= first["latency_us"]["p99"], "latency: %s" % first["latency_us"])
    busy = [worker for worker in first["workers"] if worker["event"]]
    equal(len(busy), 1, "workers with an event in hand")
    equal(instance.lines("show", "busy")[0]["number"], busy[0]["event"], "which event it is")
    equal((status["health"], len(status["reasons"])), ("degraded", 1), "health and reasons with dead events")

    # Text: each line fits into 120 columns, and the first says all.
    done = instance.run("status")
    equal(done.returncode, 1, "exit status while degraded")
    text = done.stdout.split("\n")
    check(text[0].startswith(instance.name + ": DEGRADED"), "the first line: " + text[0])
    check("2 dead events" in "\n".join(text[:4]), "the reasons follow: %s" % text[:4])
    check(all(len(line) <= 120 for line in text), "lines of at most 120 columns: %s" % text)
    check("\033" not in done.stdout, "no colours but on a terminal")
    equal(instance.run("remove", "--state", "dead").returncode, 0, "remove")
    wait_for(lambda: instance.status()["health"] == "ok", "health ok without dead events")
    done = instance.run("status")
    equal((done.returncode, done.stderr), (0, ""), "exit status and messages while all is well")
    check(done.stdout.startswith(instance.name + ": ok"), "the first line: " + done.stdout)
    by_name = subprocess.run([os.path.join(BUILD, "eventpipe"), "status", "-i", instance.name, "--json"],
                             stdout=subprocess.PIPE, text=True)
    equal((by_name.returncode, json.loads(by_name.stdout)["pid"]), (0, instance.daemon.pid), "by its name alone")

    # --watch: an object a second, each newer than the last, until it is told to end.
    watch = subprocess.Popen([os.path.join(BUILD, "eventpipe"), "-c", instance.config, "status", "--watch", "--json"],
                             stdout=subprocess.PIPE, text=True)
    append(lines, {"id": "good-41", "kind": "good"})
    seen = []
    while not seen or seen[-1]["sources"][0]["completed"] < 23:
        seen.append(json.loads(watch.stdout.readline()))
    check(len(seen) > 1, "watch saw the change: %d objects" % len(seen))
    watch.send_signal(signal.SIGINT)
    equal(watch.wait(60), 0, "exit status of watch")
    watch.stdout.close()

    # Killed, with an event in hand; then stopped gracefully.
    pids = instance.workers()
    instance.daemon.kill()
    instance.daemon.wait(60)
    status = wait_for(lambda: (lambda s: s if s["health"] == "down" else None)(instance.status()), "status to say down")
    equal((status["pid"], status["uptime_s"]), (None, 0), "pid and uptime of a crashed daemon")
    check(any("did not end cleanly" in reason for reason in status["reasons"]), "how it ended: %s" % status["reasons"])
    equal(missing(promised(), status), [], "members that are missing while the daemon is down")
    found = status["sources"][0]
    equal((found["delayed"], found["held"], found["dead"], found["completed"]), (4, 1, 0, 23), "what the store holds")
    equal(found["ready"] + found["running"], 1, "the one that was in hand")
    check(all(worker["pid"] is None for stage in found["stages"] for worker in stage["workers"]),
          "no worker runs: %s" % pids)
    equal(instance.run("status").returncode, 3, "exit status while down")
    open(stage + ".finish", "w").close()
    instance.start()
    instance.wait_source(lambda s: s["completed"] == 24, "the last one done")
    instance.stop()
    status = instance.status()
    equal(status["health"], "down", "health after a stop")
    check(any("not running" in reason for reason in status["reasons"]), "reasons after a stop: %s" % status["reasons"])
    finish()


main()
