# SPDX-License-Identifier: MIT
"""What the tests of `type: idefix` share: an MQTT broker of their own (mosquitto, plain and with TLS), the backend
contrib/idefix-sim, and the configuration of a source that fetches from it.
"""
import atexit
import collections
import json
import os
import pwd
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time

import harness
from harness import check, wait_for

SIMULATOR = os.path.join(harness.BUILD, "contrib", "idefix-sim")
ACCOUNT, TOKEN = "user-1", "sesame-open-7f3a"
DOMAIN = "acme"
DEVICES = 10


def program(name):
    """The path of a program of the system; Debian has mosquitto where only root's PATH leads."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def openssl(*arguments):
    done = subprocess.run([program("openssl"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(done.returncode == 0, "openssl %s: %s" % (arguments[0], done.stdout))


def make_certificates(directory, name="server", subject="DNS:localhost"):
    """NAME-ca.pem, NAME.pem and NAME.key: a test authority, and a server's certificate from it."""
    path = lambda file: os.path.join(directory, file)
    with open(path(name + ".ext"), "w") as file:
        file.write("subjectAltName=%s\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n" % subject)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", path(name + "-ca.key"), "-out", path(name + "-ca.pem"), "-days", "2",
            "-subj", "/CN=Test authority " + name)
    openssl("req", *key, "-keyout", path(name + ".key"), "-out", path(name + ".csr"), "-subj", "/CN=localhost")
    openssl("x509", "-req", "-in", path(name + ".csr"), "-CA", path(name + "-ca.pem"), "-CAkey", path(name + "-ca.key"),
            "-CAcreateserial", "-days", "2", "-extfile", path(name + ".ext"), "-out", path(name + ".pem"))


class Broker:
    """A mosquitto of the test's own; after stop() and start() it listens on the same ports. user: (name, password) that
    it asks for; by default anybody may connect. subject: whom its certificate is for."""

    def __init__(self, name="broker", tls=False, user=None, subject="DNS:localhost,IP:127.0.0.1"):
        if not program("mosquitto"):
            harness.skip("no mosquitto here: apt-get install mosquitto")
        self.directory = os.path.join(harness.DIRECTORY, name)
        os.makedirs(self.directory)
        self.port, self.tls_port = free_port(), free_port() if tls else None
        self.process = None
        lines = ["user " + pwd.getpwuid(os.geteuid()).pw_name, "persistence false", "set_tcp_nodelay true",
                 "per_listener_settings false", "log_dest stderr", "log_type error", "log_type warning",
                 "listener %d 127.0.0.1" % self.port]
        if tls:
            make_certificates(self.directory, subject=subject)
            lines += ["listener %d 127.0.0.1" % self.tls_port, "certfile %s/server.pem" % self.directory,
                      "keyfile %s/server.key" % self.directory]
        if user:
            passwords = os.path.join(self.directory, "passwords")
            subprocess.run([program("mosquitto_passwd"), "-b", "-c", passwords, *user], check=True)
            lines += ["password_file " + passwords, "allow_anonymous false"]
        else:
            lines.append("allow_anonymous true")
        self.config = os.path.join(self.directory, "mosquitto.conf")
        with open(self.config, "w") as file:
            file.write("\n".join(lines) + "\n")
        atexit.register(self.stop)
        self.start()

    @property
    def ca_file(self):
        return os.path.join(self.directory, "server-ca.pem")

    def url(self, tls=False):
        return "ssl://127.0.0.1:%d" % self.tls_port if tls else "tcp://127.0.0.1:%d" % self.port

    def start(self, wait=True):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen([program("mosquitto"), "-c", self.config], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        if wait:
            wait_for(self.is_up, lambda: "the broker to listen; its log: " + self.log_text())

    def is_up(self):
        if self.process.poll() is not None:
            raise AssertionError("the broker ended with %d: %s" % (self.process.returncode, self.log_text()))
        return accepts(self.port)

    def log_text(self):
        with open(os.path.join(self.directory, "log"), errors="replace") as file:
            return file.read()[-2000:]

    def stop(self, how=signal.SIGKILL):
        """Gone without a word, as a machine that lost its power."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(harness.PATIENCE)
        self.process = None


class Simulator:
    """contrib/idefix-sim at a broker. command() gives an order; `ready` says whether it has its broker."""

    def __init__(self, broker, *options, name="sim"):
        self.requests_path = os.path.join(harness.DIRECTORY, name + ".requests")
        self.answers = queue.Queue()
        self.ready = threading.Event()
        self.ready_at = None
        self.log = os.path.join(harness.DIRECTORY, name + ".log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [SIMULATOR, "--broker", "127.0.0.1:%d" % broker.port, "--until-eof", "--verbose", "--domain", DOMAIN,
                 "--requests", self.requests_path, *map(str, options)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        atexit.register(self.close)
        threading.Thread(target=self.read, daemon=True).start()
        if broker.process:
            self.wait_ready()

    def read(self):
        """In a thread of its own: what it prints."""
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if line == "ready":
                self.ready_at = time.monotonic()
                self.ready.set()
            elif line == "lost":
                self.ready.clear()
            else:
                self.answers.put(line)
        self.answers.put("error it ended")

    def wait_ready(self):
        check(self.ready.wait(harness.PATIENCE), "the simulator has no broker")

    def wait_lost(self):
        wait_for(lambda: not self.ready.is_set(), "the simulator to notice that its broker is gone")

    def command(self, order):
        """What stands behind `ok` in its answer."""
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        answer = self.answers.get(timeout=harness.PATIENCE)
        check(answer.split(" ")[0] == "ok", "%s: %s" % (order[:200], answer))
        return answer[3:]

    def stats(self):
        return json.loads(self.command("stats"))

    def event(self, uid, **members):
        self.command("event " + event_text(uid, **members))

    def requests(self, command=None):
        """All requests so far, or those of one command."""
        with open(self.requests_path, encoding="utf-8") as file:
            found = [json.loads(line) for line in file.read().rpartition("\n")[0].splitlines()]
        return [request for request in found if command in (None, request["to"][len("idefix."):])]

    def wait_stats(self, condition, what):
        seen = {}

        def look():
            seen["stats"] = self.stats()
            return seen["stats"] if condition(seen["stats"]) else None
        return wait_for(look, lambda: "%s; %s" % (what, seen["stats"]))

    def wait_held(self, count=1):
        """Until polls are held: there is nothing new for them."""
        return self.wait_stats(lambda stats: stats["held"] == count, "%d held polls" % count)

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def event_text(uid, **members):
    """An event as Idefix has it, on one line."""
    event = {"uid": uid, "domain": DOMAIN, "address": "device-000", "sourceId": "probe", "type": "reading",
             "timestamp": "2026-01-02T03:04:05Z", "meta": None, "payload": {"value": 1}}
    event.update(members)
    return json.dumps({key.replace("_b64", ":b64"): value for key, value in event.items() if value is not ...},
                      ensure_ascii=False)


def device_of(uid):
    return "device-%03d" % (sum(uid.encode()) % DEVICES)


def quake_text(line):
    """An earthquake's line as an Idefix event; the line stands in it as it is."""
    quake = json.loads(line)
    ms = quake["properties"]["time"]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + ".%03dZ" % (ms % 1000)
    head = {"uid": quake["id"], "domain": DOMAIN, "address": device_of(quake["id"]), "sourceId": "seismograph",
            "type": "earthquake", "timestamp": stamp, "meta": {"net": quake["properties"]["net"]}}
    return json.dumps(head)[:-1] + ', "payload": ' + line + "}"


def token_file(token=TOKEN, name="token"):
    path = os.path.join(harness.DIRECTORY, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(token + "\n")
    return path


def idefix_source(id, broker, *stages, tls=False, **keys):
    """An idefix source as YAML. None takes a key out. Times are short, so that what is amiss shows soon."""
    source = {"id": id, "type": "idefix", "broker": broker.url(tls) if isinstance(broker, Broker) else broker,
              "account": ACCOUNT, "token_file": token_file(), "domain": DOMAIN, "long_poll": "2s", "response_timeout": "1s",
              "connect_timeout": "2s", "retry": {"min": "100ms", "max": "500ms"}, "stages": list(stages)}
    if tls:
        source["ca_file"] = broker.ca_file
    source.update(keys)
    return "- " + json.dumps({key: value for key, value in source.items() if value is not None}) + "\n"


def fetched(instance, id=None):
    """Events that the store has taken in, looked at beside the daemon."""
    rows = dict(instance.query("SELECT id, fetched FROM source"))
    return sum(rows.values()) if id is None else rows.get(id, 0)


def seen(calls):
    """The events that a stage made by seeing_stage() has been given, in order."""
    return [call[1] for call in calls() if call[0] == "event"]


def seeing_stage(name, body="    pass"):
    """python_stage that notes each event as it came."""
    return harness.python_stage(name, '    witness("event", event)\n' + body)


def uids_once(events, expected, what):
    """Every event came, each once."""
    count = collections.Counter(event["uid"] for event in events)
    missing, strange = set(expected) - set(count), set(count) - set(expected)
    check(not missing and not strange, "%s: missing %s, strange %s" % (what, sorted(missing)[:5], sorted(strange)[:5]))
    twice = [uid for uid, times in count.items() if times != 1]
    check(not twice, "%s: more than once: %s" % (what, twice[:5]))


def check_logs(backend, *instances):
    """No secret in a daemon's log, and nothing from a sanitizer in any."""
    with open(backend.log, errors="replace") as file:
        texts = [file.read()]
    for instance in instances:
        texts.append(instance.log_text())
        check(TOKEN not in texts[-1], "the token is in the log")
    for text in texts:
        check("Sanitizer" not in text and "runtime error" not in text, "a sanitizer's report: " + text[-8000:])
