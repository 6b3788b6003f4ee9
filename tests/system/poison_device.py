#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One device out of ten crashes its stage with every event: those events end dead, reason `crashed`, with the
signal and the last stderr output, after exactly max_crashes crashes each; all others are done. Once with a program that ends by
SIGSEGV, once with a plugin that aborts inside its worker (where there is a C compiler).
"""
import collections
import json
import os
import shlex
import shutil
import subprocess

import harness
from harness import check, equal, wait_for

EVENTS, DEVICES, POISONED = 200, 10, "station-7"
MAX_CRASHES = 3

PROGRAM = """#!/usr/bin/env python3
import json, os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for line in sys.stdin:
    call = json.loads(line)
    fd = os.open({witness!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (call["event"]["uid"] + "\\n").encode())
    os.close(fd)
    if call["event"]["address"] == {poisoned!r}:
        print("reading", call["event"]["uid"], "out of range", file=sys.stderr)
        print("about to fall over", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    print('{{"processed":true}}', flush=True)
"""

PLUGIN = """
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "src/eventpipe.h"
static enum ep_answer process(ep_call *call, void *state)
{
    const cJSON *event = ep_call_event(call);
    const char *uid = cJSON_GetStringValue(cJSON_GetObjectItem(event, "uid"));
    int fd = open("%(witness)s", O_WRONLY | O_APPEND | O_CREAT, 0600);
    (void)state;
    dprintf(fd, "%%s\\n", uid);
    close(fd);
    if (strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(event, "address")), "%(poisoned)s") == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        fprintf(stderr, "reading %%s out of range\\nabout to fall over\\n", uid);
        abort();
    }
    return EP_PROCESSED;
}
EP_API extern const struct ep_stage ep_plugin_stage;
const struct ep_stage ep_plugin_stage = {.abi = EP_STAGE_ABI, .name = "poisoned", .process = process};
"""


def compile_plugin(witness):
    """Path of the plugin; None where nothing compiles."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if not shutil.which(compiler[0]):
        return None
    text, path = os.path.join(harness.DIRECTORY, "poison.c"), os.path.join(harness.DIRECTORY, "poison.so")
    with open(text, "w") as file:
        file.write(PLUGIN % {"witness": witness, "poisoned": POISONED})
    subprocess.run([*compiler, "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC",
                    "-I" + harness.SOURCE, "-o", path, text, "-lcjson"], check=True)
    return path


class Case:
    """One source with its poisoned stage and a stage behind it that notes what comes through."""

    def __init__(self, instance, name, stage, witness, signal):
        self.instance, self.name, self.signal, self.witness = instance, name, signal, witness
        # Restarts are soon, and so are retries: the pauses are not what is shown here.
        path, self.passed = harness.python_stage("passed-" + name)
        self.source = """
- id: %s
  type: file
  path: %s
  uid: /id
  address: /station
  stages:
    - name: check
      %s
      max_crashes: %d
      restart: {max_backoff: 1s}
      retry: {min: 50ms, max: 200ms}
      concurrency: 2
    - name: pass
      exec: [python3, %s]
""" % (name, FEED, stage, MAX_CRASHES, path)

    def verify(self):
        wanted = {uid for uid, device in DEVICE.items() if device != POISONED}
        poisoned = set(DEVICE) - wanted
        source = self.instance.wait_empty(EVENTS, self.name)
        equal([source[k] for k in ("fetched", "completed", "removed_by_stage", "dead")],
              [EVENTS, len(wanted), 0, len(poisoned)],
              self.name + ": fetched, completed, removed, dead")
        equal({call[1] for call in self.passed()}, wanted, self.name + ": what came through")
        stage = source["stages"][0]
        equal([stage[k] for k in ("processed", "crashed")], [len(wanted), MAX_CRASHES * len(poisoned)],
              self.name + ": processed, crashed")
        with open(self.witness) as file:
            calls = collections.Counter(file.read().split())
        for uid in poisoned:
            equal(calls[uid], MAX_CRASHES, "%s: how often the stage saw %s" % (self.name, uid))
        dead = {event["uid"]: event for event in self.instance.lines("queue", "--source", self.name)}
        equal(set(dead), poisoned, self.name + ": what is left")
        for uid, event in dead.items():
            equal([event[k] for k in ("state", "reason", "crashes", "stage", "address")],
                  ["dead", "crashed", MAX_CRASHES, "check", POISONED], "%s: event %s" % (self.name, uid))
            self.verify_error(uid, event["error"])
        uid = min(poisoned)
        shown = self.instance.run("show", "--source", self.name, uid)
        equal(shown.returncode, 0, "exit status of show: " + shown.stderr)
        check("crashed" in shown.stdout, "show %s does not say crashed: %s" % (uid, shown.stdout))
        self.verify_error(uid, shown.stdout)

    def verify_error(self, uid, message):
        for part in (self.signal, "reading %s out of range" % uid, "about to fall over"):
            check(part in message, "%s: expected %r in the error of %s: %s" % (self.name, part, uid, message))


def others_go_on(instance, names):
    """While nothing is left but dead events: a new one of another device goes through at once, and health says why."""
    with open(FEED, "a") as file:
        file.write(json.dumps({"id": "late", "station": "station-1"}) + "\n")
    for name in names:
        instance.wait_source(lambda s: s["fetched"] == EVENTS + 1 and s["ready"] + s["running"] + s["delayed"] == 0,
                             name + ": a late event", name)
    wait_for(lambda: instance.status()["health"] == "degraded", "health degraded")
    # A worker may still wait for its restart; what stays is that there are dead events.
    def only_these():
        reasons = instance.status()["reasons"]
        return reasons if len(reasons) == len(names) else None
    reasons = wait_for(only_these, lambda: "dead events as the only reasons: %s" % instance.status()["reasons"])
    for name, reason in zip(names, reasons):
        check(name in reason and "%d dead events" % (EVENTS // DEVICES) in reason, "reason: " + reason)


def main():
    with open(FEED, "w") as file:
        for uid, device in DEVICE.items():
            file.write(json.dumps({"id": uid, "station": device}) + "\n")
    instance = harness.Instance()
    witnesses = [os.path.join(harness.DIRECTORY, name) for name in ("program.calls", "plugin.calls")]
    program = harness.script("poison.py", PROGRAM.format(witness=witnesses[0], poisoned=POISONED))
    cases = [Case(instance, "program", "exec: [python3, %s]" % program, witnesses[0], "signal 11")]
    plugin = compile_plugin(witnesses[1])
    if plugin:
        cases.append(Case(instance, "plugin", "plugin: " + plugin, witnesses[1], "signal 6"))
    else:
        print("no C compiler: the plugin that aborts was left out")
    instance.configure("".join(case.source for case in cases))
    instance.start()
    for case in cases:
        case.verify()
    others_go_on(instance, [case.name for case in cases])
    instance.stop()
    harness.finish()


FEED = os.path.join(harness.DIRECTORY, "readings.jsonl")
DEVICE = {"r%03d" % number: "station-%d" % (number % DEVICES) for number in range(EVENTS)}
main()
