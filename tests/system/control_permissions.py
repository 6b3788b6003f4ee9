# SPDX-License-Identifier: MIT
"""Who may do what through the control socket: its mode lets others look or not; whatever it is, only root and the
daemon's user may change anything. Root plays nobody for that; without root the part is skipped, and says so."""
import json
import os
import socket
import stat

from harness import DIRECTORY, Instance, append, check, equal, file_source, finish, python_stage, skip

NOBODY = 65534
WRITING = ({"command": "retry", "all": True}, {"command": "hold", "all": True}, {"command": "release", "all": True},
           {"command": "requeue", "all": True},
           {"command": "remove", "all": True}, {"command": "inject", "source": "lines"},
            {"command": "pause", "source": "lines"},
           {"command": "resume", "source": "lines"}, {"command": "restart", "source": "lines"}, {"command": "drain"},
           {"command": "stop"},
           {"command": "cursor", "source": "lines", "set": "0"}, {"command": "remove", "all": True, "dry_run": True})
READING = ({"command": "ping"}, {"command": "queue", "all": True}, {"command": "show", "uids": ["dead"]},
           {"command": "cursor", "source": "lines"})


def ask(path, line, body=b""):
    """The last line of the answer, or None when the connection is refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(60)
        try:
            client.connect(path)
        except PermissionError:
            return None
        answer = b""
        try:
            client.sendall(line + body)
            client.shutdown(socket.SHUT_WR)
            while got := client.recv(65536):
                answer += got
        except (ConnectionResetError, BrokenPipeError):
            pass  # it closed before it had read all; what it said came first
    return json.loads(answer.splitlines()[-1]) if answer else {}


def as_nobody(path, requests):
    """The answers' ends, asked for by another user in a process of its own."""
    results, child_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            ends = [ask(path, json.dumps(request).encode() + b"\n") for request in requests]
            os.write(child_end, json.dumps(ends).encode())
        finally:
            os._exit(0)
    os.close(child_end)
    with os.fdopen(results) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def main():
    instance = Instance()
    lines = os.path.join(DIRECTORY, "lines")
    stage, _ = python_stage("work", '    answer = {"reject": "no"}')
    source = file_source("lines", lines, {"name": "work", "exec": [stage]})
    append(lines, {"id": "dead"})
    for path in (DIRECTORY, instance.directory):
        os.chmod(path, 0o711)
    for mode in (None, 0o600, 0o660, 0o666):
        instance.configure(source, "" if mode is None else 'control_mode: "%04o"' % mode)
        instance.start()
        instance.wait_source(lambda s: s["dead"] == 1, "the event to be dead")
        found = os.stat(instance.socket)
        check(stat.S_ISSOCK(found.st_mode), "it is a socket")
        equal(stat.S_IMODE(found.st_mode), 0o600 if mode is None else mode, "mode of the socket")
        equal(stat.S_IMODE(os.stat("/dev/shm/eventpipe-" + instance.name).st_mode), 0o600, "mode of the segment")
        equal(stat.S_IMODE(os.stat(instance.database).st_mode), 0o600, "mode of the store")
        if os.geteuid() == 0:
            nobodys = as_nobody(instance.socket, WRITING + READING)
            for request, end in zip(WRITING + READING, nobodys):
                if mode != 0o666:
                    equal(end, None, "connection of another user to a socket of mode %s" % mode)
                elif request in WRITING:
                    check(end["code"] == 1 and "not allowed" in end["message"], "%s by another user: %s" % (request, end))
                else:
                    equal(end["code"], 0, "%s by another user: %s" % (request, end))
            status = instance.status()
            equal((status["phase"], status["sources"][0]["dead"], status["sources"][0]["paused"]),
                  ("running", 1, False), "nothing was changed")
        if mode != 0o666:
            instance.stop()

    # Rubbish on the socket is answered or dropped, and harms no process.
    for rubbish in (b"\n", b"hello\n", b"[]\n", b'{"command":7}\n', b'{"command":"fly"}\n',
                    b'{"command":"queue","sauce":"x"}\n',
                    b'{"command":"queue"',
                    b"\xff\x00\xfe\n", b'{"command":"remove"}\n', b'{"command":"pause","source":["lines"]}\n',
                    b"x" * 70000 + b"\n"):
        end = ask(instance.socket, rubbish)
        check(end == {} or end["code"] == 2, "%r: %s" % (rubbish[:40], end))
    end = ask(instance.socket, b'{"command":"inject","source":"lines"}\n', b'{"uid":"x"}\n{"uid"')
    check(end["code"] == 1, "an injection that is cut off: %s" % end)
    equal(ask(instance.socket, b'{"command":"ping"}\n')["code"], 0, "it still answers")
    instance.wait_source(lambda s: s["dead"] == 2, "the whole line of the cut injection to be an event")
    instance.stop()
    if os.geteuid() != 0:
        skip("the part with another user needs root")
    finish()


main()
