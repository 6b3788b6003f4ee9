# SPDX-License-Identifier: MIT
"""The figures: what is measured, in turns, and which rows of the table come of it.

A figure has measurements (a key, and how it is taken) and rows. A row shows one value of one measurement, maybe beside
its limit (a value of another one, or a number), and maybe with a target for their ratio, or for the value where there is
no limit.
"""
import collections
import os

import bench_measure

# sense: "least" or "most"; aim: better still, said but not rated
Target = collections.namedtuple("Target", "sense number aim", defaults=(None,))
# limit: (key, value), a number, or None
Row = collections.namedtuple("Row", "label key value unit limit target", defaults=(None, None))
# measures: {key: function()}; before, after: called once; single: keys of what is measured in one round only
Figure = collections.namedtuple("Figure", "name title measures rows before after single", defaults=(None, None, ()))
# events: of a run of no-op stages; the rest follows from it
# figure_s: no further round of a figure is begun when it would take longer than that in all
Scale = collections.namedtuple("Scale", "events latency_s waiting_s idle_s backlogs standing workers append figure_s")

FULL = Scale(50000, 10, 3, 30, (10000, 1000000, 10000000), 100000, (1, 4, 16), 2000, 300)
CHECK = Scale(20000, 3, 1, 8, (1000000,), 100000, (1, 4), 500, 15)
SMALLEST = Scale(200, 0.2, 0.05, 0.2, (100,), 100, (1, 2), 20, 15)

PACE = 50
PER_S = "per_s"
# Answers that a worker commits together at most: the default of `batch` in eventpipe.yaml(5), and of bench-alone. With
# batches of the same size, both wait for the disk equally often; `throughput` also shows batches of 100.
BATCH = 500
SMALL_BATCH = 100


def some(events, share):
    """A share of them that is a multiple of ten."""
    return max(20, int(events * share) // 10 * 10)


def throughput(bench, scale):
    events = scale.events
    return Figure("throughput", "Throughput: 3 no-op C stages, concurrency 1, 220 bytes, synchronous=FULL", {
        "alone": lambda: bench.alone("--events", events),
        "pipeline": lambda: bench.pipeline("--events", events),
        "alone-small": lambda: bench.alone("--events", events, "--batch", SMALL_BATCH),
        "pipeline-small": lambda: bench.pipeline("--events", events, "--batch", SMALL_BATCH),
        "append": lambda: bench.append("--count", scale.append)}, [
            Row("batches of up to %d, beside one process with %d" % (BATCH, SMALL_BATCH), "pipeline", PER_S, "/s",
                ("alone-small", PER_S), Target("least", 1.0, 1.3)),
            Row("both in batches of up to %d" % BATCH, "pipeline", PER_S, "/s", ("alone", PER_S)),
            Row("both in batches of %d" % SMALL_BATCH, "pipeline-small", PER_S, "/s", ("alone-small", PER_S)),
            Row("4 KiB append + fdatasync in a loop", "append", PER_S, "/s")])


def synchronous(bench, scale):
    events = scale.events
    return Figure("synchronous", "The same with synchronous=NORMAL, and in memory", {
        "alone-normal": lambda: bench.alone("--events", events, "--normal"),
        "normal": lambda: bench.pipeline("--events", events, "--normal"),
        "alone-memory": lambda: bench.alone("--events", events, "--normal", quick=True),
        "memory": lambda: bench.pipeline("--events", events, memory=True)}, [
            Row("synchronous: normal", "normal", PER_S, "/s", ("alone-normal", PER_S)),
            Row("memory:, beside a table in /dev/shm", "memory", PER_S, "/s", ("alone-memory", PER_S))])


def programs(bench, scale):
    stage = os.path.join(bench_measure.HERE, "bench_stage.py")
    events = scale.events
    return Figure("exec", "The same with programs as stages", {
        "alone": lambda: bench.alone("--events", events),
        "exec-c": lambda: bench.pipeline("--events", some(events, 0.4), "--", bench.path("bench-stage")),
        "exec-python": lambda: bench.pipeline("--events", some(events, 0.2), "--", bench_measure.python(), stage)}, [
            Row("3 exec stages in C", "exec-c", PER_S, "/s", ("alone", PER_S), Target("least", 0.4)),
            Row("3 exec stages in Python", "exec-python", PER_S, "/s", ("alone", PER_S), Target("least", 0.15))])


def stages(bench, scale):
    measures, rows = {}, []
    for count in (1, 2, 4, 8):
        measures["alone-%d" % count] = lambda count=count: bench.alone("--events", some(scale.events, 0.6), "--stages", count)
        measures["stages-%d" % count] = lambda count=count: bench.pipeline("--events", some(scale.events, 0.6), "--stages",
                                                                           count)
        rows.append(Row("%d C stage%s" % (count, "s" if count > 1 else ""), "stages-%d" % count, PER_S, "/s",
                        ("alone-%d" % count, PER_S)))
    return Figure("stages", "The same with 1, 2, 4, 8 stages", measures, rows)


def workers(bench, scale):
    measures, rows = {"alone": lambda: bench.alone("--events", scale.events)}, []
    for count in scale.workers:
        measures["workers-%d" % count] = lambda count=count: bench.pipeline("--events", scale.events, "--workers", count)
        rows.append(Row("%d worker%s a stage" % (count, "s" if count > 1 else ""), "workers-%d" % count, PER_S, "/s",
                        ("alone", PER_S)))
    one, four = scale.workers[:2]
    rows.append(Row("%d workers a stage, beside %d" % (four, one), "workers-%d" % four, PER_S, "/s",
                    ("workers-%d" % one, PER_S), Target("least", 1.0)))
    return Figure("workers", "The same with several workers a stage", measures, rows)


def payload(bench, scale):
    measures, rows = {}, []
    for size, label, share in ((220, "220 B", 1), (4096, "4 KiB", 0.4), (65536, "64 KiB", 0.04)):
        sized = ("--events", some(scale.events, share), "--payload", size)
        measures["alone-%d" % size] = lambda sized=sized: bench.alone(*sized)
        measures["payload-%d" % size] = lambda sized=sized: bench.pipeline(*sized)
        rows.append(Row("payload of " + label, "payload-%d" % size, PER_S, "/s", ("alone-%d" % size, PER_S)))
    return Figure("payload", "The same with larger events", measures, rows)


def one(bench, scale):
    events = some(scale.events, 0.06)
    crowd = ("--events", events, "--workers", 16 if scale.events > 1000 else 2, "--input", 1, "--batch", 1)
    return Figure("one", "Batches of one: one event waits before each stage, 16 workers a stage", {
        "alone-one": lambda: bench.alone("--events", events, "--batch", 1),
        "one": lambda: bench.pipeline(*crowd),
        "single-fetch": lambda: bench.pipeline(*crowd, "--page", 1)}, [
            Row("beside a transaction per event and step", "one", PER_S, "/s", ("alone-one", PER_S), Target("least", 1.5)),
            Row("the same, and fetched one by one", "single-fetch", PER_S, "/s", ("alone-one", PER_S))])


def latency(bench, scale):
    paced = ("--events", some(scale.latency_s * PACE, 1), "--pace", PACE)
    rows = []
    for part, most in ((50, 1.3), (99, 2.0), (99.9, None)):
        rows.append(Row("p%g, beside one process's four transactions" % part, "paced", ("latency_us", part), "us",
                        ("alone-paced", ("latency_us", part)), most and Target("most", most)))
        rows.append(Row("p%g, beside four times 4 KiB + fdatasync" % part, "paced", ("latency_us", part), "us",
                        ("append-paced", ("latency_us", part))))
    return Figure("latency", "Latency: one event at a time, 50/s, from its arrival to the commit that ends it", {
        "alone-paced": lambda: bench.alone(*paced),
        "paced": lambda: bench.pipeline(*paced),
        "append-paced": lambda: bench.append("--count", paced[1], "--pace", PACE, "--each", 4)}, rows)


def count_words(count):
    return "%d million" % (count // 1000000) if count >= 1000000 else "{:,}".format(count)


def growth(bench, scale):
    events = some(scale.events, 1)
    measures, rows = {}, []
    for backlog in (0,) + scale.backlogs:
        name = "backlog-%d" % backlog
        measures[name] = lambda name=name: bench.beside(name, events)
        measures[name + "-watched"] = lambda name=name: bench.beside(name, events, watch=True)
        label = count_words(backlog) if backlog else "nothing"
        most = backlog == max(scale.backlogs)
        if backlog:
            rows.append(Row(label + " waiting, beside an empty store", name, PER_S, "/s", ("backlog-0", PER_S),
                            Target("least", 0.9) if most else None))
        rows.append(Row(label + " waiting: from the start to the first event through", name, "start_ms", "ms", None,
                        Target("most", 1000) if most else None))
        rows.append(Row(label + " waiting: the largest process's private memory", name + "-watched", "private_mib", "MiB",
                        None, Target("most", 16) if most else None))
        rows.append(Row(label + " waiting: store", name + "-watched", "store_mib", "MiB"))
        rows.append(Row(label + " waiting: WAL, at most", name + "-watched", "wal_mib", "MiB"))

    def before():
        bench.fill("backlog-0", "--events", 10, "--dead")  # a store that has been used, with nothing that waits
        for backlog in scale.backlogs:  # with what comes: at 10 million, nothing is fetched (backlog.max_events)
            bench.fill("backlog-%d" % backlog, "--events", max(1, backlog - events))

    def after():
        for backlog in (0,) + scale.backlogs:
            bench.empty("backlog-%d" % backlog)
    return Figure("growth", "Growth: as many events come as go, beside a backlog", measures, rows, before, after,
                  [name for name in measures if name.endswith("-watched")])


def waiting(bench, scale):
    measures, rows = {}, []
    for count in (1, 10, 25, 100) if scale.waiting_s >= 1 else (1, 10):
        ideal = count * 100
        measures["waiting-%d" % count] = lambda count=count, ideal=ideal: bench.pipeline(
            "--events", some(ideal * scale.waiting_s, 1), "--stages", 1, "--workers", count, "--sleep", 10)
        rows.append(Row("concurrency %d, beside the ideal" % count, "waiting-%d" % count, "steady_per_s", "/s", ideal,
                        Target("least", 0.95)))
    return Figure("waiting", "Work that waits: a stage that sleeps 10 ms for each event", measures, rows)


def idle(bench, scale):
    return Figure("idle", "Idle: a daemon with a file source and three C stages, all its processes", {
        "idle": lambda: bench.idle(scale.idle_s)}, [
            Row("CPU, per cent of a core", "idle", "cpu_percent", "%", None, Target("most", 0.1)),
            Row("wake-ups a second", "idle", "wakes_per_s", "/s", None, Target("most", 2)),
            Row("private memory", "idle", "private_mib", "MiB"),
            Row("the largest process's", "idle", "largest_mib", "MiB")], single=("idle",))


def retry(bench, scale):
    events, standing = some(scale.events, 1), scale.standing
    label = "{:,}".format(standing)

    def tenth(found):
        """As if the refused ones counted: the others' time alone is what is looked at."""
        return dict(found, per_s=events / found["seconds"])

    def before():
        for name, count, kind in (("none", 10, "--dead"), ("delayed", standing, "--delayed"), ("dead", standing, "--dead"),
                                  ("tenth", 10, "--dead"), ("tenth-delayed", standing, "--delayed")):
            bench.fill(name, "--events", count, kind)

    def after():
        for name in ("none", "delayed", "dead", "tenth", "tenth-delayed"):
            bench.empty(name)
    return Figure("retry", "Retry load: what events that are tried again, delayed or dead do to the others", {
        "none": lambda: bench.beside("none", events),
        "delayed": lambda: bench.beside("delayed", events),
        "dead": lambda: bench.beside("dead", events),
        "tenth": lambda: tenth(bench.beside("tenth", events, "--refuse-tenth")),
        "tenth-delayed": lambda: tenth(bench.beside("tenth-delayed", events, "--refuse-tenth"))}, [
            Row(label + " delayed events standing by", "delayed", PER_S, "/s", ("none", PER_S), Target("least", 0.95)),
            Row(label + " dead events standing by", "dead", PER_S, "/s", ("none", PER_S), Target("least", 0.95)),
            Row("every tenth event not processed at first", "tenth", PER_S, "/s", ("none", PER_S)),
            Row("the same, with %s delayed" % label, "tenth-delayed", PER_S, "/s", ("none", PER_S))],
                  before, after)


ALL = {"throughput": throughput, "synchronous": synchronous, "exec": programs, "stages": stages, "workers": workers,
       "payload": payload, "one": one, "latency": latency, "growth": growth, "waiting": waiting, "idle": idle, "retry": retry}
# those with targets
CHECKED = ("throughput", "exec", "workers", "one", "latency", "growth", "waiting", "idle", "retry")
