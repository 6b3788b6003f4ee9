# SPDX-License-Identifier: MIT
"""`eventpipe crashes`: which processes crashed, when, how, over which event, with which last stderr output; also while the keeper stands
still, while the daemon is down, and after a supervisor that was killed. What ends cleanly is not in the list."""
import os
import signal
import time

from harness import DIRECTORY, PATIENCE, Instance, alive, append, check, equal, file_source, finish, python_stage, wait_for

BODY = '''
    how, told = event["payload"].get("how"), %r + event["uid"]
    if how and not os.path.exists(told):
        open(told, "w").close()
        sys.stderr.write("alas, " + event["uid"] + "\\n")
        sys.stderr.flush()
        if how == "signal":
            os.kill(os.getppid(), signal.SIGSEGV)
        if how == "exit":
            os._exit(7)
        if how == "malformed-answer":
            print("no answer at all", flush=True)
        time.sleep(600)
''' % os.path.join(DIRECTORY, "told-")
RETRY = {"min": "20ms", "max": "50ms"}


def failing_starts(instance, count):
    """None of them loses what the killed daemon left: neither those that get no segment, nor one that has its own."""
    blocks = os.stat("/dev/shm/eventpipe-" + instance.name).st_size // 512 - 1
    no_room = ("sh", "-c", 'trap "" XFSZ; ulimit -f %d; exec "$@"' % blocks, "sh")
    for message, prefix in (("shared memory", no_room), ("control socket", ()), ("shared memory", no_room)):
        os.unlink(instance.socket)
        if not prefix:
            os.mkdir(instance.socket)
        before = len(instance.log_text())
        instance.start(wait=False, prefix=prefix)
        equal(instance.daemon.wait(PATIENCE), 1, "exit status for want of a " + message)
        check(message in instance.log_text()[before:], "it says why: " + instance.log_text()[before:])
        if not prefix:
            os.rmdir(instance.socket)
        equal(len(instance.lines("crashes")), count, "crashes after a start without a " + message)
        open(instance.socket, "w").close()
    os.unlink(instance.socket)


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    work, _ = python_stage("work", BODY)
    slow, _ = python_stage("slow", BODY)
    instance.configure("\n".join([
        file_source("lines", lines, {"name": "work", "exec": [work], "retry": RETRY}),
        file_source("slow", lines + ".slow", {"name": "slow", "exec": [slow], "retry": RETRY, "timeout": "4s"})]))
    before_ms = time.time() - 1
    done = instance.run("crashes")
    equal(done.returncode, 1, "no store yet: " + done.stderr)
    instance.start()
    done = instance.run("crashes")
    equal((done.returncode, done.stdout), (4, ""), "none has crashed")
    check("no process" in done.stderr, "it says so: " + done.stderr)

    append(lines, {"id": "a", "how": "signal"}, {"id": "b", "how": "exit"}, {"id": "c", "how": "malformed-answer"})
    append(lines + ".slow", {"id": "d", "how": "hang"})
    instance.wait_empty(3, "lines")
    instance.wait_empty(1, "slow")
    # On a machine so slow that the stage has not begun within its timeout, it crashes over that more than once.
    all_lines = instance.lines("crashes")
    stored = len(all_lines)
    found = {line["uid"]: line for line in all_lines if line["uid"] != "d" or line["last_output"]}
    equal({uid: line["cause"] for uid, line in found.items()},
          {"a": "signal", "b": "exit", "c": "malformed-answer", "d": "timeout"}, "how each of them crashed")
    for uid, line in found.items():
        source, stage = ("slow", "slow") if uid == "d" else ("lines", "work")
        equal((line["process"], line["kind"], line["source"], line["stage"]),
              ("%s/%s[0]" % (source, stage), "worker", source, stage), "who")
        check("alas, " + uid in line["last_output"], "last stderr output of %s: %s" % (uid, line))
        check(line["pid"] > 0 and line["uptime_ms"] >= 0 and line["number"] > 0, "its numbers: %s" % line)
        check(line["crashed"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(before_ms)), "when: %s" % line)
    check("signal 11" in found["a"]["how"] and found["a"]["code"] == 11, "as text: %s" % found["a"])
    check("7" in found["b"]["how"] and found["b"]["code"] == 7, "as text: %s" % found["b"])
    check("timed out after 4s" in found["d"]["how"], "as text: %s" % found["d"])

    equal({line["uid"] for line in instance.lines("crashes", "slow/slow")}, {"d"}, "of one stage")
    equal(len(instance.lines("crashes", "lines")), 3, "of one source")
    last = instance.lines("crashes", "--limit", "2")
    equal(last, instance.lines("crashes")[-2:], "the latest two")
    for target, message in (("nobody", "there is no source nobody"), ("nobody/work", "there is no source nobody"),
                          ("lines/slow", "source lines has no stage slow")):
        done = instance.run("crashes", target)
        equal((done.returncode, done.stdout), (4, ""), "of an unknown " + target)
        check(message in done.stderr, "it says that it is unknown: " + done.stderr)
    equal(instance.run("crashes", "--limit", "0").returncode, 2, "a limit of zero")
    text = instance.run("crashes").stdout
    check("CRASHED" in text and "alas, a" in text and "lines/work[0]" in text, "for people: " + text)

    # The keeper stands still, then the supervisor: what is not stored yet is read from the segment.
    wait_for(lambda: instance.query("SELECT count(*) FROM crash") == [(stored,)], "the crashes to be stored")
    keeper = instance.status()["keeper"]["pid"]
    os.kill(keeper, signal.SIGSTOP)
    producer = instance.source("slow")["producer"]["pid"]
    os.kill(producer, signal.SIGKILL)
    fifth = wait_for(lambda: instance.lines("crashes")[stored:], "a crash that only the segment knows")[0]
    equal((fifth["kind"], fifth["pid"], fifth["uid"], fifth["stage"]), ("producer", producer, None, None), "the fifth")
    equal(instance.query("SELECT count(*) FROM crash"), [(stored,)], "stored so far")

    # The whole daemon is killed, the keeper still stopped: the next start stores the fifth, and the daemon's own.
    pid = instance.daemon.pid
    os.kill(pid, signal.SIGKILL)
    instance.daemon.wait()
    wait_for(lambda: not alive(keeper), "the instance to be gone")
    done = instance.run("crashes", "--json")
    equal((done.returncode, len(done.stdout.splitlines())), (0, stored + 1), "from what the dead left")
    check("did not end cleanly" in done.stderr, "it says so: " + done.stderr)
    failing_starts(instance, stored + 2)
    instance.start()
    wait_for(lambda: instance.query("SELECT count(*) FROM crash") == [(stored + 2,)], "both to be stored")
    sixth = instance.lines("crashes")
    equal(len(sixth), stored + 2, "each once")
    equal((sixth[-2], sixth[-1]["kind"], sixth[-1]["pid"], sixth[-1]["process"]), (fifth, "daemon", pid, "daemon"), "the sixth")

    # An order to restart, and a graceful stop, are no crashes.
    old = instance.workers()
    equal(instance.run("restart", "lines").returncode, 0, "restart")
    wait_for(lambda: len(instance.workers()) == len(old) and not set(old[:1]) & set(instance.workers()), "new workers")
    instance.stop()
    done = instance.run("crashes", "--json")
    equal((done.returncode, len(done.stdout.splitlines())), (0, stored + 2), "with the daemon down: " + done.stderr)
    finish()


main()
