#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The first pipeline of README.md runs as pasted, on what `make install` installs: the recipe for an ordinary user as it
is, the recipe for root with its folders moved into the test's own. And `make install` installs what README.md names."""
import json
import os
import re
import shutil
import subprocess

from harness import BUILD, DIRECTORY, NAME, PATIENCE, SOURCE, check, equal, finish, skip

ROOT = os.path.join(DIRECTORY, "root")
LINES = 250


def recipe(readme, heading):
    """The shell blocks under a heading, as one script."""
    section = re.search(r"^### %s\b.*?\n(.*?)^#+ " % heading, readme, re.M | re.S)
    blocks = re.findall(r"^```sh\n(.*?)^```", section[1], re.M | re.S) if section else []
    check(blocks, "README.md has no recipe under: " + heading)
    return "".join(blocks)


def install():
    """Installs below ROOT, and returns the prefix there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "-C", BUILD, "install", "DESTDIR=" + ROOT], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    equal(done.returncode, 0, "exit status of make install, which said: " + done.stdout[-4000:])
    paths = [os.path.join(folder, name) for folder, folders, files in os.walk(ROOT) for name in folders + files]
    for wanted in ("/bin/eventpipe", "/sbin/eventpiped", "/doc/eventpipe/README.md", "/doc/eventpipe/tests/README.md",
                   "/doc/eventpipe/contrib/benchmark.md", "/doc/eventpipe/contrib/bench.svg",
                   "/doc/eventpipe/contrib/eventpipe.sample.yaml", "/doc/eventpipe/contrib/examples/append.sh",
                   "/etc/eventpipe", "/var/lib/eventpipe"):
        check(any(path.endswith(wanted) for path in paths), "make install makes no ..." + wanted)
    return os.path.dirname(os.path.dirname(next(path for path in paths if path.endswith("/bin/eventpipe"))))


def run(script, home, until):
    """Runs a recipe; where it sleeps until the daemon has done its work, `until` is waited for."""
    check(script.count("sleep 2\n") == 1, "a recipe waits once")
    script = script.replace("sleep 2\n", "until %s; do sleep 0.1; done 2>/dev/null\n" % until)
    done = subprocess.run(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=PATIENCE, cwd=home, env=dict(os.environ, HOME=home))
    equal(done.returncode, 0, "exit status of the recipe, which said: " + done.stdout)
    check("configuration ok" in done.stdout and ": ok " in done.stdout, "healthy: " + done.stdout)
    return done.stdout


def results(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def ordinary_user(readme, home):
    script = recipe(readme, "As an ordinary user").replace("instance: readings", "instance: " + NAME)
    told = run(script, home, "eventpipe -c readings.yaml status >status && [ $(wc -l <results) = 2 ]")
    found = results(os.path.join(home, "readings", "results"))
    equal([(each["event"]["uid"], each["context"]) for each in found[:2]],
          [("r1", {"alarm": False}), ("r2", {"alarm": True})], "events and contexts")
    check(re.search(r"processed +alarm", told), "the trace of one event: " + told)


def root(readme, home):
    script = recipe(readme, "As root")
    for folder in ("/etc/eventpipe", "/var/lib/eventpipe", "/run/eventpipe", "/var/log"):
        os.makedirs(home + folder, exist_ok=True)
        script = script.replace(folder, home + folder)
    config = home + "/etc/eventpipe/readings.yaml"
    for old, new in (("id eventpipe || useradd", ": useradd"), (" -o eventpipe -g eventpipe", ""),
                     ("runuser -u eventpipe -- ", ""), ("-i readings", "-c " + config),
                     ("\nsources:\n", "\ninstance: %s\nstorage: sqlite:%s/var/lib/eventpipe/readings.db\ncontrol: %s\nsources:\n"
                      % (NAME + "-root", home, home + "/run/eventpipe/readings.sock"))):
        check(old in script, "the recipe for root has %r" % old)
        script = script.replace(old, new)
    path = home + "/var/lib/eventpipe/results"
    run(script, home, "eventpipe -c %s status >status && [ $(wc -l <%s) = 1 ]" % (config, path))
    equal([each["event"]["uid"] for each in results(path)], ["r1"], "events")


def main():
    with open(os.path.join(SOURCE, "README.md")) as file:
        readme = file.read()
    check(readme.count("\n") <= LINES, "README.md has %d lines, %d at most" % (readme.count("\n"), LINES))
    if not shutil.which("make") or not os.path.exists(os.path.join(BUILD, "Makefile")):
        skip("there is no make, or no Makefile in the build folder")
    prefix = install()
    os.environ["PATH"] = os.pathsep.join([prefix + "/sbin", prefix + "/bin", os.environ["PATH"]])
    homes = [os.path.join(DIRECTORY, name) for name in ("user", "machine")]
    for home in homes:
        os.mkdir(home)
    os.symlink(prefix, os.path.join(homes[0], ".local"))
    ordinary_user(readme, homes[0])
    root(readme, homes[1])
    finish()


main()
