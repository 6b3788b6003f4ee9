# SPDX-License-Identifier: MIT
"""A configuration with mistakes: refused as a whole, each mistake with file, line, key, what was expected and what is
near; the same from the daemon, from its -t, and from `eventpipe check`. Nothing is started or made."""
import json
import os
import re
import shutil
import subprocess

from harness import BUILD, DIRECTORY, Instance, check, equal, finish, python_stage, script

NOBODY = 65534
# Per line of the configuration, what must be said about it.
MISTAKES = """
instance: {name}                #
storage: sqlite:{directory}/store.db #
control: {directory}/control.sock #
synchronus: full                # synchronus: unknown key; did you mean `synchronous`?
drain_timeout: 30               # expected a duration
sources:                        #
  - id: one                     #
    type: fiel                  # did you mean file?
    path: {directory}/lines     #
    page_size: many                  # expected
    stages:                     #
      - name: a                 #
        exec: [{stage}]         #
        concurency: 4           # unknown key; did you mean `concurrency`?
        timeout: soon           # expected a duration
        retry: {{min: 5m, max: 1s}} # max
      - name: a                 # a
        exec: [{stage}]         #
        concurrency: 0          # expected
  - id: one                     # one
    type: http                  #
    url: gopher://example/      # http
    stages: []                  # stages
"""


def daemon(*arguments, **options):
    return subprocess.run([os.path.join(BUILD, "eventpiped"), *arguments], stdin=subprocess.DEVNULL, text=True, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def missing_directory():
    """-t names the directory that the store needs, and the command that makes it."""
    directory = os.path.join(DIRECTORY, "state", "of one")
    config = os.path.join(DIRECTORY, "directory.yaml")
    with open(config, "w") as file:
        file.write("storage: %s\nsources: [{id: s, type: generate, stages: [{name: x, exec: [cat]}]}]\n"
                   % json.dumps("sqlite:" + os.path.join(directory, "store.db")))

    def refused(message, **options):
        done = daemon("-t", "-c", config, **options)
        equal(done.returncode, 1, "exit status of -t: " + done.stderr)
        found = re.fullmatch(re.escape(config) + r": storage: (.*)\n", done.stderr)
        check(found and message in found[1], "expected one line with %r, found: %s" % (message, done.stderr))
        return found[1]

    made = refused("does not exist").split("; make it: ")[1]
    subprocess.run(["sh", "-c", made], check=True)
    equal(daemon("-t", "-c", config).stdout, "configuration ok\n", "-t once the directory is there")
    check(os.listdir(directory) == [], "-t writes nothing: %s" % os.listdir(directory))
    os.chmod(directory, 0o555)
    if os.geteuid() != 0:
        refused("cannot write to")
    else:  # which may write everywhere: another user asks, with a copy of the program that this one can reach
        os.chmod(os.path.dirname(directory), 0o755)
        program = shutil.copy(os.path.join(BUILD, "eventpiped"), DIRECTORY)
        refused("cannot write to", executable=program, user=NOBODY, group=NOBODY, extra_groups=[])
    os.rmdir(directory)
    with open(directory, "w"):
        pass
    refused("is not a directory")


def main():
    instance = Instance()
    stage, _ = python_stage("work")
    values = {"name": instance.name, "directory": instance.directory, "stage": stage}
    expected = {}
    with open(instance.config, "w") as file:
        for number, line in enumerate(MISTAKES.strip("\n").split("\n"), 1):
            text, message = line.split("#", 1)
            file.write(text.format(**values).rstrip() + "\n")
            if message.strip():
                expected[number] = message.strip()
    for arguments, code in ((("-t", "-c", instance.config), 1), (("-c", instance.config), 2)):
        done = daemon(*arguments)
        equal(done.returncode, code, "exit status of eventpiped " + " ".join(arguments[:1]))
        told = {}
        for line in done.stderr.splitlines():
            found = re.match(re.escape(instance.config) + r":(\d+): (\S+): (.+)", line)
            check(found, "a problem is file:line: key: message, found " + line)
            told.setdefault(int(found[1]), []).append(found[2] + ": " + found[3])
        for number, message in expected.items():
            check(any(message in text for text in told.get(number, [])),
                  "line %d: expected %r, found %s" % (number, message, told.get(number)))
        # `stages: []`, and what follows from a type that is none, may be said of a neighbouring line; no other may.
        equal(sorted(set(told) - set(expected)), [], "lines without a mistake")
    done = daemon("-c", os.path.join(DIRECTORY, "nowhere.yaml"))
    equal(done.returncode, 2, "exit status with no such file")
    check("nowhere.yaml" in done.stderr and "No such file" in done.stderr, "it says so: " + done.stderr)

    problems = [line for line in instance.lines("check", code=3) if line["where"] == "config"]
    check({problem["line"] for problem in problems} == set(expected), "check finds the same lines: %s" % problems)
    check(all(problem["file"] == instance.config and problem["key"] and problem["problem"] for problem in problems),
          "check has file, key and problem")
    for path in (instance.socket, instance.database, "/dev/shm/eventpipe-" + instance.name):
        check(not os.path.exists(path), path + " was not made")

    # What the file cannot tell: a program that is not there. -t and check look; the daemon itself waits for it.
    instance.configure('- {"id": "s", "type": "generate", "count": 1, "stages": '
                       '[{"name": "x", "exec": ["%s/missing"]}]}' % DIRECTORY)
    done = daemon("-t", "-c", instance.config)
    check(done.returncode == 1 and "s/x: " in done.stderr and "missing" in done.stderr,
          "-t misses the program: %r" % (done,))
    check("missing" in instance.run("check").stdout, "check misses the program")
    script("missing", "#!/bin/sh\nwhile read -r line; do echo '{\"processed\":true}'; done\n")
    done = daemon("-t", "-c", instance.config)
    equal((done.returncode, done.stdout, done.stderr), (0, "configuration ok\n", ""), "-t of a good configuration")
    # A directory of the store that is missing, that is a file, or where this user may not write.
    missing_directory()
    # A secret that others may read.
    token = os.path.join(DIRECTORY, "token")
    with open(token, "w") as file:
        file.write("very-secret\n")
    os.chmod(token, 0o644)
    instance.configure('- {"id": "s", "type": "http", "url": "http://localhost/", "token_file": "%s", "stages": '
                       '[{"name": "x", "exec": ["%s/missing"]}]}' % (token, DIRECTORY))
    done = daemon("-t", "-c", instance.config)
    check(done.returncode == 1 and "token_file" in done.stderr and "0600" in done.stderr.replace("chmod 600", "0600"),
          "a token that others may read is refused: " + done.stderr)
    check("very-secret" not in done.stderr + done.stdout, "and not shown")
    finish()


main()
