#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every example in contrib/examples, and every stage that README.md shows, is built and run as its own words say. The
sample configuration, and the sources that README.md shows, are right.

Each example is the first stage of a source of its own; append.sh, itself an example, writes down what it answered. An
example that no source here uses fails the test.
"""
import json
import os
import re
import shlex
import shutil
import subprocess

import harness
from harness import check, equal, wait_for

README = os.path.join(harness.SOURCE, "README.md")
DPKG = ["2026-05-20 10:11:12 status installed libc6:amd64 2.36-9", "2026-05-20 10:11:13 startup archives unpack",
        "2026-05-20 10:11:14 install jq:amd64 <none> 1.6-2.1", "this is no line of dpkg's"]
READINGS = [{"type": "temperature", "station": "roof", "level": "info"},
            {"type": "humidity", "station": "roof", "level": "debug"},
            {"type": "temperature", "station": "cellar", "level": "debug"},
            {"type": "temperature", "station": "roof", "level": "info"}]


def quake(magnitude, place):
    return {"properties": {"mag": magnitude, "place": place}}


QUAKES = [quake(4.5, "10km NE of Aguanga, CA"), quake(0.2, "South of Panama"), quake(None, "somewhere, Chile"),
          {"no": "quake"}]


# ---- building, as the examples say

def has_compiler():
    return shutil.which(shlex.split(os.environ.get("CC") or "cc")[0]) and shutil.which("pkg-config")


def build(name, text, command):
    """Runs the Build: command of an example in a directory where the library seems to be installed."""
    directory = os.path.join(harness.DIRECTORY, "build")
    os.makedirs(directory, exist_ok=True)
    shutil.copy(os.path.join(harness.SOURCE, "src", "eventpipe.h"), directory)
    with open(os.path.join(directory, "libeventpipe.pc"), "w") as file:
        file.write("Name: libeventpipe\nDescription: as installed\nVersion: 0\nRequires: libcjson\n")
        file.write("Cflags: -I%s\n" % directory)
    with open(os.path.join(directory, name), "w") as file:
        file.write(text.replace('"src/eventpipe.h"', "<eventpipe.h>"))
    compiler = os.environ.get("CC") or "cc"
    check(command.startswith("cc "), "how %s is built: %s" % (name, command))
    subprocess.run(compiler + command[len("cc"):] + " -Wall -Werror", shell=True, check=True, cwd=directory,
                   env=dict(os.environ, PKG_CONFIG_PATH=directory))
    return os.path.join(directory, shlex.split(command)[shlex.split(command).index("-o") + 1])


def build_example(name):
    with open(os.path.join(harness.EXAMPLES, name)) as file:
        text = file.read()
    found = re.search(r"Build: (cc .*)", text)
    check(found, "%s does not say how it is built" % name)
    return build(name, text, found.group(1).strip())


def readme_block(language, contains):
    """The fenced block of README.md in this language that has these words in it."""
    with open(README) as file:
        blocks = re.findall(r"^```%s\n(.*?)^```" % language, file.read(), re.M | re.S)
    block = next((block for block in blocks if contains in block), None)
    check(block, "README.md has no %s block with %r" % (language, contains))
    return block


# ---- one source for each

class Example:
    """Events through the stages; `wanted`: the contexts that arrive behind them, in any order."""
    all = []

    def __init__(self, id, stages, events, wanted, removed=0, rejected=0, keys=""):
        self.id, self.wanted, self.events, self.removed, self.rejected = id, wanted, events, removed, rejected
        self.results = os.path.join(harness.DIRECTORY, id + ".results")
        feed = os.path.join(harness.DIRECTORY, id + ".feed")
        with open(feed, "w") as file:
            file.writelines((event if isinstance(event, str) else json.dumps(event)) + "\n" for event in events)
        self.source = "- {id: %s, type: file, path: %s%s, stages: [%s, {name: append, exec: [%s, %s]}]}\n" % (
            id, feed, keys, ", ".join(stages), example("append.sh"), self.results)
        Example.all.append(self)

    def verify(self, instance):
        count = len(self.events)
        source = instance.wait_empty(count, self.id)
        equal([source["fetched"], source["completed"], source["removed_by_stage"], source["dead"]],
              [count, count - self.removed - self.rejected, self.removed, self.rejected],
              self.id + ": fetched, completed, removed, dead")
        with open(self.results) as file:
            found = [json.loads(line) for line in file]
        for result in found:
            check(result.pop("key").startswith(self.id + "/"), "%s: key of %s" % (self.id, result))
        order = lambda context: json.dumps(context, sort_keys=True)
        equal(sorted(found, key=order), sorted(self.wanted, key=order), self.id + ": contexts")


used = set()


def example(name):
    used.add(name)
    return os.path.join(harness.EXAMPLES, name)


def plugin(name):
    """The plugin that was built with everything else, and, where that is possible, built once more as its head says."""
    example(name + ".c")
    return build_example(name + ".c") if has_compiler() else os.path.join(harness.PLUGINS, name + ".so")


def scripts():
    keys = ", address: /station, event_type: /type"
    seen = [{"address": "roof", "seen": 1}, {"address": "roof", "seen": 2}, {"address": "cellar", "seen": 1},
            {"address": "roof", "seen": 3}]
    enrich = "{name: enrich, exec: [python3, %s]}" % example("enrich.py")
    Example("enrich", [enrich], READINGS, seen, keys=keys)
    Example("filter", ["{name: filter, exec: [%s, temperature]}" % example("filter.sh"), enrich], READINGS,
            [{"address": "roof", "seen": 1}, {"address": "roof", "seen": 2}, {"address": "cellar", "seen": 1}],
            removed=1, keys=keys)


def readings():
    given = [{"type": "temperature", "station": "device-003", "value": 21.5},
             {"type": "application/x", "station": "of ours", "value": -3e-2},
             {"type": "door", "station": "device-004", "open": True, "value": "none"}]
    noted = [{"address": "device-003", "type": "temperature", "value": 21.5}, {"type": "application/x", "value": -3e-2},
             {"address": "device-004", "type": "door"}]
    Example("readings", ["{name: reading, exec: [sh, %s]}" % example("reading.sh")], given, noted,
            keys=", address: /station, event_type: /type")


def dpkg():
    parse = "{name: parse, exec: [%s]}" % example("dpkg_parse.sh")
    parsed = [{"action": "installed", "package": "libc6:amd64"}, {"action": "startup", "package": ""},
              {"action": "install", "package": "jq:amd64"}, {"action": "other", "package": ""}]
    Example("dpkg", [parse], DPKG, parsed)
    count = "{name: count, plugin: %s, options: {member: action}}" % plugin("plugin_count")
    classes = ["installed", "dpkg", "requested", "other"]
    Example("count", [parse, count], DPKG,
            [{**context, "class": name, "number": 1} for context, name in zip(parsed, classes)])


def earthquakes():
    locate = "{name: locate, exec: [python3, %s]}" % example("quakes_locate.py")
    classify = plugin("plugin_classify")
    keep = "{name: filter, exec: [%s]}" % example("quakes_filter.sh")
    located = [{"magnitude": 4.5, "region": "CA"}, {"magnitude": None, "region": "Chile"}]
    Example("quakes", [locate, "{name: classify, plugin: %s}" % classify, keep], QUAKES,
            [{**located[0], "class": "light"}, {**located[1], "class": "unknown"}], removed=1, rejected=1)
    options = "options: {thresholds: [0.1, 0.3]}"
    Example("thresholds", [locate, "{name: classify, plugin: %s, %s}" % (classify, options), keep], QUAKES,
            [{**located[0], "class": "light"}, {**located[1], "class": "unknown"}], removed=1, rejected=1)


def programs():
    example("upper.c")
    if has_compiler():
        Example("upper", ["{name: upper, exec: [%s]}" % build_example("upper.c")], ["a quiet word", {"no": "text"}],
                [{"upper": "A QUIET WORD"}, {}])


def readme():
    """The stages that README.md shows."""
    python = harness.script("readme.py", readme_block("python", "import json, sys"))
    Example("readme-python", ["{name: length, exec: [python3, %s]}" % python], READINGS,
            [{"length": len(json.dumps(reading))} for reading in READINGS])
    if has_compiler():
        with open(README) as file:
            command = re.search(r"`(cc -shared [^`]*)`", file.read()).group(1)
        count = build("count.c", readme_block("c", "ep_plugin_stage"), command)
        Example("readme-c", ["{name: count, plugin: %s}" % count], READINGS[:3] + ["text"], [{"members": 3}] * 3, rejected=1)


def accepted(name, text):
    """eventpiped -t accepts this configuration."""
    path = os.path.join(harness.DIRECTORY, name)
    with open(path, "w") as file:
        file.write(text)
    done = subprocess.run([os.path.join(harness.BUILD, "eventpiped"), "-c", path, "-t"], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    equal((done.returncode, done.stdout), (0, "configuration ok\n"), "eventpiped -t of " + name)


def token_file():
    path = os.path.join(harness.DIRECTORY, "token")
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write("secret\n")
    return path


def readme_sources():
    """The sources that README.md shows are right, once they have stages and a token."""
    text = readme_block("yaml", "type: http").replace("[...]", "[{name: x, exec: [cat]}]")
    storage = "storage: sqlite:%s/readme.db\nsources:\n" % harness.DIRECTORY
    accepted("readme.yaml", storage + text.replace("/etc/eventpipe/acme.token", token_file()))


def sample():
    """The sample configuration, as it is and with each key that is commented out. Of those, the daemon's user and a plugin
    that is not there must be left out."""
    with open(os.path.join(harness.SOURCE, "contrib", "eventpipe.sample.yaml")) as file:
        text = file.read()
    for folder in ("/var/lib/eventpipe", "/run/eventpipe"):
        text = text.replace(folder, harness.DIRECTORY)
    accepted("sample.yaml", text.replace("\nsources:", "\nstorage: sqlite:%s/sample.db\nsources:" % harness.DIRECTORY))
    full = re.sub(r"^( *)#(?=[^ ]|  )", r"\1", text, flags=re.M)  # prose has one blank behind its #
    check(full.count("\n#") < text.count("\n#") and "\ninstance: sample\n" in full, "keys are commented out in the sample")
    full = re.sub(r"^ *(user|group): no.*\n", "", full, flags=re.M) if os.geteuid() != 0 else full
    full = full.replace("/etc/eventpipe/account.token", token_file())
    full = full.replace("/usr/lib/eventpipe/count.so", os.path.join(harness.PLUGINS, "plugin_count.so"))
    accepted("sample_full.yaml", full)


def main():
    if not has_compiler():
        print("no C compiler or no pkg-config: nothing is built here")
    for group in (scripts, readings, dpkg, earthquakes, programs, readme):
        group()
    readme_sources()
    sample()
    instance = harness.Instance()
    instance.configure("".join(each.source for each in Example.all))
    instance.start()
    for each in Example.all:
        each.verify(instance)
    reasons = [reason for reason in instance.status()["reasons"] if "dead event" not in reason]
    equal(reasons, [], "reasons but for the rejected events")
    instance.stop()
    # library.c is built with the library and run by library_example.sh; a build in the tree leaves its products here
    built = (".so", ".o", ".lo")
    there = {name for name in os.listdir(harness.EXAMPLES) if "." in name[1:] and not name.endswith(built)} - {"library.c"}
    equal(used, there, "examples that were run, and those that are there")
    harness.finish()


main()
