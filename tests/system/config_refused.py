# SPDX-License-Identifier: MIT
"""A configuration with mistakes: refused as a whole, each mistake with file, line, key, what was expected and what is
near; the same from the daemon, from its -t, and from `eventpipe check`. Nothing is started or made."""
import os
import re
import subprocess

from harness import BUILD, DIRECTORY, Instance, check, equal, finish, python_stage, script

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
    page: many                  # expected
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


def daemon(*arguments):
    return subprocess.run([os.path.join(BUILD, "eventpiped"), *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60)


def main():
    instance = Instance()
    stage, _ = python_stage("work")
    values = {"name": instance.name, "directory": instance.directory, "stage": stage}
    expected = {}
    with open(instance.config, "w") as file:
        for number, line in enumerate(MISTAKES.strip("\n").split("\n"), 1):
            text, words = line.split("#", 1)
            file.write(text.format(**values).rstrip() + "\n")
            if words.strip():
                expected[number] = words.strip()
    for arguments, code in ((("-t", "-c", instance.config), 1), (("-c", instance.config), 2)):
        done = daemon(*arguments)
        equal(done.returncode, code, "exit status of eventpiped " + " ".join(arguments[:1]))
        told = {}
        for line in done.stderr.splitlines():
            found = re.match(re.escape(instance.config) + r":(\d+): (\S+): (.+)", line)
            check(found, "a problem is file:line: key: words, found " + line)
            told.setdefault(int(found[1]), []).append(found[2] + ": " + found[3])
        for number, words in expected.items():
            check(any(words in text for text in told.get(number, [])),
                  "line %d: expected %r, found %s" % (number, words, told.get(number)))
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
