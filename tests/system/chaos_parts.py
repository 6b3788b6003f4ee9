# SPDX-License-Identifier: MIT
"""The parts of the helper of `eventpipe chaos` that need no process: its configuration, its events, its plan of faults, its
accounting and its report."""
import itertools
import json
import os
import sys

from harness import CHAOS, DIRECTORY, Instance, check, equal, finish, script

sys.path.insert(0, CHAOS)
import accounting  # noqa: E402
import faults  # noqa: E402
import feed  # noqa: E402
import recorder  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402
import run_config  # noqa: E402
from store import Event, SourceTotals, StageTotals  # noqa: E402

# Prints what the helper is told.
ECHO = "import sys; print(sys.stdin.read())\n"
USER = r"""
synchronous: normal
drain_timeout: 7s
sources:
- id: a
  type: http
  url: http://h/{cursor}
  token_env: PATH
  cursor: {last_event_path: /id}
  address: /where
  page_size: 7
  stages: &stages
  - name: one
    exec: [python3, 'a b.py', "", '5', '~', "two\nlines\x7f", True]
    directory: scripts
    environment: {A: "#x", B: 'yes', C: True}
    concurrency: 3
    max_crashes: 2
    timeout: 90s
    retry: {min: 5m, max: 1h}
    max_attempts: 4
  - {name: two, plugin: lib/two.so, options: {n: 5, t: '5', z: null, l: [1, true], big: 9223372036854775807}}
  - {name: three, url: 'http://h/', headers: ['X-A: b'], ca_file: /etc/ca.pem, token_env: HOME}
- {id: b, type: generate, size: 50, stages: *stages}
"""
PLACES = run_config.Places("/tmp/eventpipe-chaos.x1")


def told():
    """What src/cli/chaos.c tells its helper."""
    instance = Instance()
    with open(instance.config, "w") as file:
        file.write("instance: live\nstorage: sqlite:live.db\ncontrol: live.sock\n" + USER)
    os.environ["EVENTPIPE_CHAOS_HELPER"] = script("echo.py", ECHO)
    done = instance.run("chaos")
    equal((done.returncode, done.stderr), (0, ""), "the helper's end")
    return instance, json.loads(done.stdout)


def the_stages_stay_as_they_are():
    instance, plan = told()
    equal((plan["payload_bytes"], plan["longest_timeout_ms"], plan["drain_timeout_ms"]), ({"b": 50}, 90000, 7000), "values")
    equal(plan["config_path"], instance.config, "path of the configuration")
    user = plan["config"]
    found = run_config.configuration(user, user["sources"], PLACES)
    equal((found["storage"], found["control"], found["instance"]),
          ("sqlite:/tmp/eventpipe-chaos.x1/store.db", "/tmp/eventpipe-chaos.x1/control", "chaos-x1-%d" % os.getuid()), "places")
    equal((found["synchronous"], found["drain_timeout"]), ("normal", "7s"), "other keys")
    first, second = found["sources"]
    equal((first["type"], first["path"], first["page_size"], first["address"]),
          ("file", "/tmp/eventpipe-chaos.x1/feed.0", "7", "/where"), "the file that stands for a source")
    check(not {"token_env", "url", "cursor"} & set(first) and "address" not in second, "nothing else of a source: %s" % first)
    for index, source in enumerate(found["sources"]):
        one, two, three, last = source["stages"]
        equal(one["exec"], ["python3", "a b.py", "", "5", "~", "two\nlines\x7f", "True"], "the program")
        equal(one["directory"], os.path.join(instance.directory, "scripts"), "a path of the user's file")
        equal(one["environment"], {"A": "#x", "B": "yes", "C": "True"}, "the environment")
        equal((one["concurrency"], one["max_attempts"]), ("3", "4"), "numbers")
        equal((one["max_crashes"], one["retry"]["max"], one["restart"]), (50, "500ms", {"max_backoff": "500ms"}), "short pauses")
        equal(two["plugin"], os.path.join(instance.directory, "lib/two.so"), "the plugin's path")
        equal(two["options"], {"n": 5, "t": "5", "z": None, "l": [1, True], "big": 2**63 - 1}, "options keep their types")
        equal((three["headers"], three["ca_file"]), (["X-A: b"], "/etc/ca.pem"), "an http stage")
        equal((last["name"], last["exec"], last["max_crashes"]),
              (recorder.STAGE_NAME, recorder.command(PLACES.recorded(index)), 0), "the recorder")
    equal(run_config.unwanted_tokens(user, found), {"PATH"}, "tokens that no stage is to see")
    # The daemon's own reader takes it, with all its characters.
    again = Instance("-again")
    with open(again.config, "w") as file:
        file.write(run_config.as_yaml(found))
    done = again.run("chaos", "b")
    equal(done.returncode, 0, "the configuration of a run is read: " + done.stderr)
    equal(json.loads(done.stdout)["config"]["sources"][1]["stages"][0]["exec"], found["sources"][1]["stages"][0]["exec"],
          "the program again")


def lines_are_found_again():
    events = feed.Feed(os.path.join(DIRECTORY, "feed"), [], 40)
    events.write(3)
    events.write(2)
    with open(events.path) as file:
        lines = file.readlines()
    equal([len(line) for line in lines], [41] * 5, "bytes of the lines")
    equal([json.loads(line)["n"] for line in lines], [1, 2, 3, 4, 5], "made-up events")
    for number in range(5):
        equal(events.number_of("%d-0-%d-abc" % (events.inode, number * 41)), number, "the line of a uid")
        equal(events.number_of("%d-0-%d-abc" % (events.inode, number * 41 + 1)), None, "no line of the feed")
    equal(events.number_of("%d-0-0-abc" % (events.inode + 1)), None, "another file's")
    equal(events.number_of("nonsense"), None, "no uid of a file source")
    events.close()


def samples():
    def read(data):
        path = os.path.join(DIRECTORY, "sample")
        with open(path, "wb") as file:
            file.write(data)
        return feed.read_sample(path)
    equal(read(b'{"a":1}\r\n\n[2]'), [b'{"a":1}', b"[2]"], "lines of a sample")
    for bad in (b'{"a":1}\nnonsense\n', b"{}\0{}\n", b"\n \n", b"", b"NaN\n", b'"\xff"\n'):
        try:
            check(False, "a sample %r: %s" % (bad, read(bad)))
        except ValueError:
            pass


def the_window_follows_the_pace():
    size = feed.window(0, 0)
    equal(size, 64, "the first window")
    equal(feed.window(size, 10), 64, "slow stages are not flooded")
    equal(feed.window(size, 60), 128, "fast ones get more")
    for _ in range(30):
        size = feed.window(size, 1000000)
    equal(size, 20000, "the largest window")


def a_seed_repeats_its_faults():
    plans = [list(itertools.islice(faults.plan(seed, run.PROFILE), 1000)) for seed in (4711, 4711, 4712)]
    check(plans[0] == plans[1] != plans[2], "the seed alone decides")
    check(all(0.010 <= fault.pause_s <= 0.100 and 0.020 <= fault.stop_s <= 0.250 for fault in plans[0]), "its bounds")
    equal({"%s %s" % (fault.action, fault.kind) for fault in plans[0]}, set(run.PROFILE.weights), "kinds of faults")


# ---- accounting ----

def sound(**totals):
    """100 went in: 80 completed, 10 removed, 6 dead, 4 delayed; but what is said otherwise."""
    source = accounting.SourceCount("a", 100, SourceTotals(100, 80, 10, 0, 10, 4, 0, 6)._replace(**totals), recorded=80)
    source.stored.update(dead=6, delayed=4)
    source.dead.update(rejected=6)
    return source


def sum_of(source, **changes):
    for name, value in changes.items():
        setattr(source, name, value)
    total = accounting.add_up(source)
    return total.lost, total.doubled, total.locked, total.waiting


def every_event_has_one_end():
    equal(sum_of(sound()), (0, 0, 0, 0), "all is well")
    equal(accounting.add_up(sound()).came_through, 90, "came through")
    equal(sum_of(sound(), recorded=79), (1, 1, 0, 0), "one completed twice, another never recorded")
    equal(sum_of(sound(completed=79), recorded=79), (1, 0, 0, 0), "the store knows that one is missing")
    equal(sum_of(sound(completed=79)), (1, 0, 0, 0), "recorded, and gone without an answer that was committed")
    equal(sum_of(sound(completed=81)), (0, 1, 0, 0), "completed, and never recorded")
    equal(sum_of(sound(), fed=101), (1, 0, 0, 0), "never fetched")
    equal(sum_of(sound(fetched=101)), (0, 1, 0, 0), "fetched twice")
    equal(sum_of(sound(), unknown=1), (0, 1, 0, 0), "never sent")
    equal(sum_of(sound(live=11)), (1, 0, 0, 0), "fewer stored than the store says")
    source = sound()
    source.stored.update({"delayed": -2, "running": 1, "ready": 1})
    equal(sum_of(source), (0, 0, 1, 1), "locked and waiting")
    source.stages = [accounting.StageCount("one", 105, StageTotals(processed=90, removed=10, crashed=2)),
                     accounting.StageCount("two", 80, StageTotals(processed=80))]
    equal(accounting.add_up(source).repeated, 7, "repeated calls")


def counted_one_by_one():
    source = accounting.SourceCount("a", 5)
    events = [Event("a", "1", "dead", "rejected", 0), Event("b", "2", "ready", "", 0), Event("a", "1", "ready", "", 0),
              Event("a", "x", "delayed", "", 1)]
    accounting.count(source, lambda uid: int(uid) if uid.isdigit() else None, events, ["1", "2", "2", "3", "y"])
    equal((source.stored, source.dead), ({"dead": 1, "ready": 1, "delayed": 1}, {"rejected": 1}), "by state and reason")
    equal((source.recorded, source.recorder_repeats, source.unknown, source.stored_twice), (2, 1, 2, 1), "by event")


# ---- the report ----

def reported(text, good=False, source=None, **changes):
    result = report.Result(7, 1000, 500, {"kill worker": 1}, [source or sound()], [], True, [], False, False, [])
    for name, value in changes.items():
        setattr(result, name, value)
    as_text, as_json = report.as_text(result), json.loads(report.as_json(result))
    check(text in as_text and ("WRONG:\n" in as_text) != good, "the report has %r: %s" % (text, as_text))
    equal((as_json["good"], as_json["wrong"] == []), (good, good), "as JSON")


def reports():
    reported("a: 100 events went in; 80 were completed, 10 removed by a stage, 6 are dead (6 rejected)\n", good=True)
    reported("4 events were delayed by a stage until the end\n", good=True)
    reported("no fault was injected", injected={})
    reported("the daemon ended by itself 1 times: signal 11", unexpected=["signal 11"])
    reported("did not shut down gracefully", ended_cleanly=False)
    reported("1 processes were left running and were killed: sleep (5)", left_running=["sleep (5)"])
    reported("the daemon left its shared memory", left_segment=True)
    reported("the daemon left its socket", left_socket=True)
    reported("the store has 2 problems: bad", store_problems=["bad", "worse"])
    source = sound()
    source.recorded -= 1
    reported("a: 1 of 100 events are lost", source=source)
    source = sound(completed=79, live=11)
    source.recorded -= 1
    source.stored["running"] += 1
    reported("a: 1 events are left locked", source=source)
    source = accounting.SourceCount("a", 5, SourceTotals(fetched=5, live=5, dead=5))
    source.stored["dead"] = source.dead["rejected"] = 5
    reported("a: nothing came through", source=source)
    source = sound()
    source.dead.update({"rejected": -1, "crashed": 1})
    reported("(1 crashed, 5 rejected)", source=source)


the_stages_stay_as_they_are()
lines_are_found_again()
samples()
the_window_follows_the_pace()
a_seed_repeats_its_faults()
every_event_has_one_end()
counted_one_by_one()
reports()
finish()
