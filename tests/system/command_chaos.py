# SPDX-License-Identifier: MIT
"""`eventpipe chaos`: the user's stages (exec, plugin, http) under a storm, beside a live instance of the same
configuration that is looked at afterwards. Everything that went in has come to one end; what is wrong is told: nothing
that came through, something left running, a store that loses. However it ends, nothing of it is left."""
import json
import os
import signal
import socket
import subprocess
import sys

from harness import (BUILD, DIRECTORY, PATIENCE, PLUGINS, Helper, Instance, alive, append, check, equal, file_source,
                     finish, python_stage, wait_for)

SECONDS = os.environ.get("CHAOS_SECONDS", "2")


def segments():
    """Those of trials that no process has any more: other trials may run on this machine."""
    held = set()
    for process in os.listdir("/proc"):
        if process.isdigit():
            try:
                with open("/proc/%s/maps" % process) as maps:
                    held.update(line.rsplit("/", 1)[1].split()[0] for line in maps if "/dev/shm/eventpipe-chaos" in line)
            except OSError:  # it has ended
                pass
    return {name for name in os.listdir("/dev/shm") if name.startswith("eventpipe-chaos")} - held


def folders():
    return [name for name in os.listdir(DIRECTORY) if name.startswith("eventpipe-chaos.")]


def start(instance, *arguments, **environment):
    return subprocess.Popen([os.path.join(BUILD, "eventpipe"), "-c", instance.config, "chaos", *arguments],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=dict(os.environ, TMPDIR=DIRECTORY, **environment))


def run(instance, *arguments, **environment):
    """Its exit status, what it printed and what it said. It takes as long as the machine needs."""
    process = start(instance, *arguments, **environment)
    out, words = process.communicate()
    equal(folders(), [], "folders left by chaos %s" % (arguments,))
    return process.returncode, out, words


def trial(instance, *arguments, code=0, **environment):
    done, out, words = run(instance, "--json", "--yes", *arguments, **environment)
    check(done == code, "chaos %s: exit %d, expected %d: %s%s" % (arguments, done, code, out, words))
    return json.loads(out)


def of_trial(calls, live):
    """The calls of a stage by the trial, not by the live instance."""
    return [call for call in calls() if call[1] not in live]


def beside_a_live_one():
    collector = Helper("collector.py", os.path.join(DIRECTORY, "posts"))
    stage, calls = python_stage("sieve", '''
    kind = event["payload"].get("kind")
    if os.environ.get("EVENTPIPE_CHAOS") != "1" and kind != "live": answer = {"error": "no trial, and no live event"}
    elif "SOURCE_TOKEN" in os.environ or "NOTIFY_SOCKET" in os.environ: answer = {"error": "sees too much"}
    elif kind == "away": answer = {"remove": True}
    elif kind == "bad": answer = {"reject": "is bad"}
    elif kind == "live": answer = {"processed": False, "retry_after": "1h"}
''')
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    # relative paths begin at the configuration's directory, which is not ours
    os.symlink(PLUGINS, os.path.join(instance.directory, "plugins"))
    os.symlink(stage, os.path.join(instance.directory, "sieve.py"))
    instance.configure(file_source("lines", lines,
                                   {"name": "sieve", "exec": ["./sieve.py"], "directory": ".", "concurrency": 3},
                                   {"name": "count", "plugin": "plugins/plugin_count.so", "options": {"member": "kind"}},
                                   {"name": "post", "url": collector.url(), "concurrency": 2})
                       + '\n- {id: other, type: http, url: "http://127.0.0.1:1/", token_env: SOURCE_TOKEN,'
                         ' stages: [{name: pass, exec: [sh, "-c", "while read -r x; do echo \'{\\"processed\\":true}\'; done"]}]}')
    os.environ["SOURCE_TOKEN"] = "secret"
    append(lines, *({"id": "live-%d" % i, "kind": "live"} for i in range(5)))
    instance.start()
    instance.wait_source(lambda s: s["delayed"] == 5, "five events put off", "lines")

    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(os.path.join(DIRECTORY, "manager"))
    sample = os.path.join(DIRECTORY, "sample")
    append(sample, {"kind": "good", "text": "ä"}, {"kind": "away"}, {"kind": "good"}, {"kind": "bad"})

    def family():
        status = instance.status()
        return [status["pid"], status["recoveries"], status["keeper"]["pid"],
                [[s["id"], s["producer"]["pid"], s["fetched"], s["delayed"], s["live"] if "live" in s else None,
                  [[w["pid"], w["restarts"]] for stage in s["stages"] for w in stage["workers"]]] for s in status["sources"]]]

    before, segments_before = family(), segments()
    found = trial(instance, "--seconds", SECONDS, "--sample", sample, "--seed", "4711",
                  NOTIFY_SOCKET=os.path.join(DIRECTORY, "manager"))
    equal(found["wrong"], [], "what is wrong")
    check(found["good"] is True and found["seed"] == 4711 and sum(found["blows"].values()) > 0, "the verdict: %s" % found)
    equal([source["id"] for source in found["sources"]], ["lines", "other"], "sources")
    for source in found["sources"]:
        check(source["fed"] >= 4 and source["fed"] == source["finished"] + source["removed"] + source["dead"],
              "every event has its end: %s" % source)
        equal([source[name] for name in ("lost", "doubled", "locked", "waiting", "delayed")], [0] * 5, source["id"])
    first = found["sources"][0]
    check(first["removed"] > 0 and first["dead"] > 0 and first["finished"] > 0, "all ends were there: %s" % first)
    live = {"live-%d" % i for i in range(5)}
    called = of_trial(calls, live)
    equal(len({call[1] for call in called}), first["fed"], "different events the stage saw")
    check(first["stages"][0]["calls"] <= len(called), "no more answers than calls: %s, %d" % (first, len(called)))
    with open(os.path.join(DIRECTORY, "posts")) as file:
        posted = {json.loads(line)["event"]["uid"] for line in file}
    equal(len(posted), first["finished"], "different events that the last stage saw")

    # nobody but the trial has noticed
    equal(family(), before, "the live instance")
    equal(len([call for call in calls() if call[1] in live]), 5, "calls of the live instance's stage")
    wait_for(lambda: not segments() - segments_before, "the trial's segment to go")
    manager.setblocking(False)
    try:
        check(False, "the service manager was told %r" % manager.recv(4096))
    except BlockingIOError:
        pass
    instance.stop()

    # without leave nothing is run; what would be is told
    seen = len(calls())
    code, out, words = run(instance, "lines")
    check(code == 2 and out == "" and "--yes" in words, "without --yes: %r" % ((code, out, words),))
    check("lines/sieve: exec ./sieve.py" in words and "lines/post: http " in words and "other/" not in words,
          "what would be run: %s" % words)
    equal(len(calls()), seen, "calls without leave")
    for wrong in (["nowhere", "--yes"], ["--yes", "--seconds", "0"], ["--yes", "--seconds", "x"],
                  ["--yes", "--sample", instance.config]):
        equal(run(instance, *wrong)[0], 2, "exit status of %s" % wrong)
    return instance


def so_many(instance):
    """As many as were asked for, in words; one source alone."""
    code, out, words = run(instance, "other", "--yes", "--seconds", "1", "--events", "50")
    check(code == 0 and "other: 50 events went in; 50 were processed to the end" in out and "all is well" in out
          and "lines" not in out, "in words: %r" % ((code, out, words),))


def never_all_fed():
    """A stage that puts all off keeps the rest of the events out, and does not keep the trial from its end."""
    instance = Instance("-off")
    put_off = "while read -r x; do echo '{\"processed\":false}'; done"
    instance.configure("- " + json.dumps({"id": "off", "type": "generate", "stages": [
        {"name": "later", "exec": ["sh", "-c", put_off]}]}))
    found = trial(instance, "--seconds", "1", "--events", "3000", code=1)
    source = found["sources"][0]
    check(0 < source["fed"] < 3000 and source["lost"] == 0 and source["finished"] == 0, "not all went in: %s" % found)


def what_is_wrong():
    """A storm over stages that let nothing through, or leave something running, is not called good."""
    instance = Instance("-wrong")
    reject = "while read -r x; do echo '{\"reject\":\"never\"}'; done"
    leave = "setsid sleep 600 & echo $! >>%s; while read -r x; do echo '{\"processed\":true}'; done" % os.path.join(
        DIRECTORY, "sleepers")
    instance.configure("- " + json.dumps({"id": "none", "type": "generate", "stages": [
        {"name": "no", "exec": ["sh", "-c", reject]}]}) + "\n- " + json.dumps({"id": "some", "type": "generate", "stages": [
            {"name": "leaves", "exec": ["sh", "-c", leave]}]}))
    found = trial(instance, "none", "--seconds", "1", code=1)
    check(found["good"] is False and "none: nothing came through" in found["wrong"][0] and len(found["wrong"]) == 1
          and found["sources"][0]["dead"] == found["sources"][0]["fed"], "nothing came through: %s" % found)
    # What a stage leaves the supervisor ends; unless it is killed before that job is there to be seen.
    for _ in range(6):
        code, out, words = run(instance, "some", "--json", "--yes", "--seconds", "1")
        found = json.loads(out)
        equal(code, 0 if found["good"] else 1, "exit status: %s%s" % (out, words))
        if not found["good"]:
            break
    if found["good"]:
        print("nothing was left running this time")
    else:
        check(found["left_running"] > 0 and "left running" in found["wrong"][0] and "sleep" in found["wrong"][0]
              and len(found["wrong"]) == 1, "something was left running: %s" % found)
    check(not any(alive(pid) for pid in sleepers()), "what was left running is gone")
    return instance


def cannot_start():
    """Stages that cannot start on this machine are named, and no storm begins, which would last for hours."""
    instance = Instance("-broken")
    instance.configure("- " + json.dumps({"id": "none", "type": "generate", "stages": [
        {"name": "gone", "exec": ["/nonexistent/program"]}, {"name": "away", "plugin": "./nonexistent.so"}]})
        + "\n- " + json.dumps({"id": "some", "type": "generate", "stages": [{"name": "cat", "exec": ["cat"]}]}))
    code, out, words = run(instance, "none", "--yes", "--seconds", "1")
    check(code == 1 and out == "" and "none/gone: cannot run /nonexistent/program" in words
          and "none/away: cannot load plugin" in words and "a storm" not in words, "cannot start: %r" % ((code, out, words),))
    code, out, words = run(instance, "some")
    check(code == 2 and "none/" not in words, "the other source's are not looked at: %r" % ((code, out, words),))


def sleepers():
    try:
        with open(os.path.join(DIRECTORY, "sleepers")) as file:
            return [int(line) for line in file]
    except FileNotFoundError:
        return []


def ended_early(instance):
    """Interrupted, or killed: nothing is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        before, seen = segments(), len(sleepers())
        process = start(instance, "some", "--yes", "--seconds", "600")
        wait_for(lambda: len(sleepers()) > seen + 1, "the storm to rage")
        process.send_signal(number)
        words = process.communicate()[1]
        if number == signal.SIGTERM:
            check(process.returncode == 1 and "interrupted" in words, "told to stop: %d %s" % (process.returncode, words))
        wait_for(lambda: not any(alive(pid) for pid in sleepers()), "all of its processes to go")
        wait_for(lambda: not folders(), lambda: "its folder to go: %s" % folders())
        wait_for(lambda: not segments() - before, "its segment to go")


def main():
    cannot_start()
    instance = beside_a_live_one()
    so_many(instance)
    never_all_fed()
    ended_early(what_is_wrong())
    finish()


main()
