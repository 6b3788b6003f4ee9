# SPDX-License-Identifier: MIT
"""`eventpipe chaos`: the user's stages (exec, plugin, http) while their processes are killed, beside a live instance of the
same configuration that is looked at afterwards. Everything that went in has come to one end. What is wrong is reported:
nothing that came through, something left running, an event that the store or the recorder has lost. However the run ends,
nothing of it is left."""
import json
import os
import shutil
import signal
import socket
import subprocess

from harness import (BUILD, CHAOS, DIRECTORY, PLUGINS, Helper, Instance, alive, append, check, equal, file_source, finish,
                     python_stage, wait_for)

SECONDS = os.environ.get("CHAOS_SECONDS", "2")
HELPER = "EVENTPIPE_CHAOS_HELPER"


def segments():
    """Those of runs that no process has any more: other runs may go on on this machine."""
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
                            env={**os.environ, "TMPDIR": DIRECTORY, HELPER: os.path.join(CHAOS, "main.py"), **environment})


def run(instance, *arguments, **environment):
    """Its exit status, what it printed and what it said. It takes as long as the machine needs."""
    process = start(instance, *arguments, **environment)
    out, messages = process.communicate()
    equal(folders(), [], "folders left by chaos %s" % (arguments,))
    return process.returncode, out, messages


def run_json(instance, *arguments, code=0, **environment):
    done, out, messages = run(instance, "--json", "--yes", *arguments, **environment)
    check(done == code, "chaos %s: exit %d, expected %d: %s%s" % (arguments, done, code, out, messages))
    return json.loads(out)


def of_run(calls, live):
    """The calls of a stage by the run, not by the live instance."""
    return [call for call in calls() if call[1] not in live]


def beside_a_live_one():
    collector = Helper("collector.py", os.path.join(DIRECTORY, "posts"))
    stage, calls = python_stage("sieve", '''
    kind = event["payload"].get("kind")
    if os.environ.get("EVENTPIPE_CHAOS") != "1" and kind != "live": answer = {"error": "no run of chaos, and no live event"}
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
    found = run_json(instance, "--seconds", SECONDS, "--sample", sample, "--seed", "4711",
                  NOTIFY_SOCKET=os.path.join(DIRECTORY, "manager"))
    equal(found["wrong"], [], "what is wrong")
    check(found["good"] is True and found["seed"] == 4711 and sum(found["faults"].values()) > 0, "the report: %s" % found)
    equal([source["id"] for source in found["sources"]], ["lines", "other"], "sources")
    for source in found["sources"]:
        check(source["fed"] >= 4 and source["fed"] == source["completed"] + source["removed"] + source["dead"],
              "every event has its end: %s" % source)
        equal([source[name] for name in ("lost", "doubled", "locked", "waiting", "delayed")], [0] * 5, source["id"])
    first = found["sources"][0]
    check(first["removed"] > 0 and first["dead"] > 0 and first["completed"] > 0, "all ends were there: %s" % first)
    live = {"live-%d" % i for i in range(5)}
    called = of_run(calls, live)
    equal(len({call[1] for call in called}), first["fed"], "different events the stage saw")
    check(first["stages"][0]["calls"] <= len(called), "no more answers than calls: %s, %d" % (first, len(called)))
    with open(os.path.join(DIRECTORY, "posts")) as file:
        posted = {json.loads(line)["event"]["uid"] for line in file}
    equal(len(posted), first["completed"], "different events that the last stage saw")

    # the live instance and the service manager have not noticed
    equal(family(), before, "the live instance")
    equal(len([call for call in calls() if call[1] in live]), 5, "calls of the live instance's stage")
    wait_for(lambda: not segments() - segments_before, "the run's segment to go")
    manager.setblocking(False)
    try:
        check(False, "the service manager was told %r" % manager.recv(4096))
    except BlockingIOError:
        pass
    instance.stop()

    # without consent nothing is run, and the command says what would be
    seen = len(calls())
    code, out, messages = run(instance, "lines")
    check(code == 2 and out == "" and "--yes" in messages, "without --yes: %r" % ((code, out, messages),))
    check("lines/sieve: exec ./sieve.py" in messages and "lines/post: http " in messages and "other/" not in messages,
          "what would be run: %s" % messages)
    equal(len(calls()), seen, "calls without consent")
    for wrong in (["nowhere", "--yes"], ["--yes", "--seconds", "0"], ["--yes", "--seconds", "x"],
                  ["--yes", "--sample", instance.config]):
        equal(run(instance, *wrong)[0], 2, "exit status of %s" % wrong)
    return instance


def so_many(instance):
    """As many as were asked for, as text; one source alone."""
    code, out, messages = run(instance, "other", "--yes", "--seconds", "1", "--events", "50")
    check(code == 0 and "other: 50 events went in; 50 were completed" in out and "all is well" in out
          and "lines" not in out, "as text: %r" % ((code, out, messages),))


def never_all_fed():
    """A stage that puts all off keeps the rest of the events out, and does not keep the run from its end."""
    instance = Instance("-off")
    put_off = "while read -r x; do echo '{\"processed\":false}'; done"
    instance.configure("- " + json.dumps({"id": "off", "type": "generate", "stages": [
        {"name": "later", "exec": ["sh", "-c", put_off]}]}))
    found = run_json(instance, "--seconds", "1", "--events", "3000", code=1)
    source = found["sources"][0]
    check(0 < source["fed"] < 3000 and source["lost"] == 0 and source["completed"] == 0, "not all went in: %s" % found)


def what_is_wrong():
    """A run of stages that let nothing through, or leave something running, is not called good."""
    instance = Instance("-wrong")
    reject = "while read -r x; do echo '{\"reject\":\"never\"}'; done"
    leave = "setsid sleep 600 & echo $! >>%s; while read -r x; do echo '{\"processed\":true}'; done" % os.path.join(
        DIRECTORY, "sleepers")
    instance.configure("- " + json.dumps({"id": "none", "type": "generate", "stages": [
        {"name": "no", "exec": ["sh", "-c", reject]}]}) + "\n- " + json.dumps({"id": "some", "type": "generate", "stages": [
            {"name": "leaves", "exec": ["sh", "-c", leave]}]}))
    found = run_json(instance, "none", "--seconds", "1", code=1)
    check(found["good"] is False and "none: nothing came through" in found["wrong"][0] and len(found["wrong"]) == 1
          and found["sources"][0]["dead"] == found["sources"][0]["fed"], "nothing came through: %s" % found)
    # What a stage leaves the supervisor ends; unless it is killed before that job is there to be seen.
    for _ in range(6):
        code, out, messages = run(instance, "some", "--json", "--yes", "--seconds", "1")
        found = json.loads(out)
        equal(code, 0 if found["good"] else 1, "exit status: %s%s" % (out, messages))
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
    """Stages that cannot start on this machine are named, and no run begins, which would last for hours."""
    instance = Instance("-broken")
    instance.configure("- " + json.dumps({"id": "none", "type": "generate", "stages": [
        {"name": "gone", "exec": ["/nonexistent/program"]}, {"name": "away", "plugin": "./nonexistent.so"}]})
        + "\n- " + json.dumps({"id": "some", "type": "generate", "stages": [{"name": "cat", "exec": ["cat"]}]}))
    code, out, messages = run(instance, "none", "--yes", "--seconds", "1")
    check(code == 1 and out == "" and "none/gone: cannot run /nonexistent/program" in messages
          and "none/away: cannot load plugin" in messages and "injecting" not in messages, "cannot start: %r" % ((code, out, messages),))
    code, out, messages = run(instance, "some")
    check(code == 2 and "none/" not in messages, "the other source's are not looked at: %r" % ((code, out, messages),))


def copy_of_helper(name, module, old, new):
    """The helper with one of its modules changed."""
    folder = os.path.join(DIRECTORY, name)
    shutil.copytree(CHAOS, folder)
    path = os.path.join(folder, module)
    with open(path) as file:
        text = file.read()
    equal(text.count(old), 1, "places to change in " + module)
    with open(path, "w") as file:
        file.write(text.replace(old, new))
    return os.path.join(folder, "main.py")


def losses_are_found():
    """An event that never comes to the recorder, one that vanishes from the store, and one that was never sent."""
    instance = Instance("-loss")
    # With their line feeds, events are 220 bytes apart: -220- is in the uid of the second.
    instance.configure("- " + json.dumps({"id": "some", "type": "generate", "size": 219, "stages": [
        {"name": "pass", "exec": ["sh", "-c", "while read -r x; do echo '{\"processed\":true}'; done"]}]}))

    def wrong(environment):
        found = run_json(instance, "--seconds", "1", "--events", "200", code=1, **environment)
        return found["wrong"], found["sources"][0]
    problems, source = wrong({HELPER: copy_of_helper(
        "forgetful", "recorder.py", "if os.write(file, entry) != len(entry):",
        "if not b'-220-' in entry and os.write(file, entry) != len(entry):")})
    check("some: 1 of 200 events are lost" in problems and source["lost"] == 1, "not recorded: %s %s" % (problems, source))
    # A store that loses: while the daemon is up, an event on its way is deleted behind its back.
    loses = """
        if not getattr(self, "lost", False) and self.daemon.was_up:
            import sqlite3
            try:
                with sqlite3.connect(self.places.store, timeout=0.1) as database:
                    seq = database.execute("SELECT max(seq) FROM progress").fetchone()[0]
                    if seq is not None:
                        for table in ("progress", "event"):
                            database.execute("DELETE FROM %s WHERE seq = ?" % table, (seq,))
                        database.execute("UPDATE source SET live = live - 1")
                        self.lost = True
                database.close()
            except sqlite3.OperationalError:
                pass
"""
    marker = "        processes.reap(but=self.daemon.pid)\n"
    problems, source = wrong({HELPER: copy_of_helper("thief", "run.py", marker, marker + loses.lstrip("\n"))})
    check("some: 1 of 200 events are lost" in problems and source["lost"] == 1, "lost by the store: %s %s" % (problems, source))
    problems, source = wrong({HELPER: copy_of_helper(
        "liar", "recorder.py", "    for line in sys.stdin.buffer:\n",
        "    os.write(file, b'never-sent\\n')\n    for line in sys.stdin.buffer:\n")})
    check(source["lost"] == 0 and source["doubled"] > 0 and "never sent" in problems[0], "unknown: %s %s" % (problems, source))
    return instance


def helper_missing(instance):
    """Without the helper, or without Python, the command says what to install."""
    code, out, messages = run(instance, "--yes", **{HELPER: "/nonexistent/main.py"})
    check(code == 1 and out == "" and "/nonexistent/main.py cannot be read" in messages, "no helper: %r" % ((code, out, messages),))
    code, out, messages = run(instance, PATH="/nonexistent")
    check(code == 1 and out == "" and "install python3" in messages, "no python3: %r" % ((code, out, messages),))


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
        wait_for(lambda: len(sleepers()) > seen + 1, "the run to inject faults")
        process.send_signal(number)
        messages = process.communicate()[1]
        if number == signal.SIGTERM:
            check(process.returncode == 1 and "interrupted" in messages, "told to stop: %d %s" % (process.returncode, messages))
        wait_for(lambda: not any(alive(pid) for pid in sleepers()), "all of its processes to go")
        wait_for(lambda: not folders(), lambda: "its folder to go: %s" % folders())
        wait_for(lambda: not segments() - before, "its segment to go")


def main():
    cannot_start()
    instance = beside_a_live_one()
    so_many(instance)
    never_all_fed()
    helper_missing(losses_are_found())
    ended_early(what_is_wrong())
    finish()


main()
