# SPDX-License-Identifier: MIT
"""The report of a run, as text or as one JSON object, and the problems in it. Pure."""
import dataclasses
import json
from collections.abc import Mapping

from accounting import SourceCount, add_up

# The faults: the injector's name, the JSON member, the text.
FAULTS = (("kill worker", "worker", "workers killed"),
          ("kill program", "program", "programs of stages killed"),
          ("kill producer", "producer", "producers killed"),
          ("kill keeper", "keeper", "keepers killed"),
          ("kill newborn", "newborn", "processes killed while they started"),
          ("kill supervisor", "supervisor", "supervisors killed"),
          ("kill instance", "instance", "times all processes killed at once"),
          ("stop", "stopped", "processes stopped for a moment"),
          ("shutdown", "shutdown", "graceful shutdowns"))


@dataclasses.dataclass
class Result:
    seed: int
    run_ms: int
    drain_ms: int
    injected: Mapping[str, int]
    sources: list[SourceCount]
    unexpected: list[str]  # ends of the daemon that no fault explains
    ended_cleanly: bool
    left_running: list[str]
    left_segment: bool
    left_socket: bool
    store_problems: list[str]


def faults_of(result: Result) -> dict[str, int]:
    """By JSON member; the stops of all kinds of processes together."""
    return {member: sum(count for name, count in result.injected.items() if name == fault or
                        (fault == "stop" and name.startswith("stop "))) for fault, member, _ in FAULTS}


def problems_of_source(source: SourceCount) -> list[str]:
    total = add_up(source)
    found = [
        (total.lost, "%d of %d events are lost" % (total.lost, source.fed)),
        (total.doubled, "%d events ended twice or were never sent" % total.doubled),
        (total.locked, "%d events are left locked" % total.locked),
        (total.waiting, "%d events still waited for a stage when nothing moved any more" % total.waiting),
        (total.came_through == 0, "nothing came through, so this run shows nothing; if the stages want other events, "
                                  "give some with --sample"),
        (source.dead["crashed"], "%d events are dead because a stage crashed again and again" % source.dead["crashed"]),
        (source.dead["corrupt"], "%d events are dead because they could not be read" % source.dead["corrupt"])]
    return ["%s: %s" % (source.id, text) for wrong, text in found if wrong]


def problems(result: Result) -> list[str]:
    """The problems, one sentence each."""
    found = []
    if not any(faults_of(result).values()):
        found.append("no fault was injected, so this run shows nothing; give it more --seconds")
    for source in result.sources:
        found += problems_of_source(source)
    if result.unexpected:
        found.append("the daemon ended by itself %d times: %s" % (len(result.unexpected), result.unexpected[0]))
    if not result.ended_cleanly:
        found.append("the daemon did not shut down gracefully when it was told to")
    if result.left_running:
        found.append("%d processes were left running and were killed: %s" % (
            len(result.left_running), ", ".join(result.left_running)))
    if result.left_segment or result.left_socket:
        found.append("the daemon left its " + ("shared memory" if result.left_segment else "socket"))
    if result.store_problems:
        found.append("the store has %d problems: %s" % (len(result.store_problems), result.store_problems[0]))
    return found


def notes(result: Result) -> list[str]:
    return ["%s: %d events were delayed by a stage until the end" % (source.id, source.stored["delayed"])
            for source in result.sources if source.stored["delayed"]]


# ---- as text ----

def text_of_source(source: SourceCount) -> list[str]:
    reasons = ", ".join("%d %s" % (count, reason) for reason, count in sorted(source.dead.items()))
    lines = ["%s: %d events went in; %d were completed, %d removed by a stage, %d are dead%s" % (
        source.id, source.fed, source.totals.completed, source.totals.removed_by_stage, source.stored["dead"],
        " (%s)" % reasons if reasons else "")]
    if source.stages:
        lines.append("  %d calls of stages were repeated, as far as can be seen" % add_up(source).repeated)
    for stage in source.stages:
        totals = stage.totals
        lines.append("  %s: %d answers; committed: %d processed, %d not processed, %d failed, %d removed, %d rejected; "
                     "%d crashed or killed while processing" % (
                         stage.name, stage.calls, totals.processed, totals.retried, totals.failed, totals.removed,
                         totals.rejected, totals.crashed))
    return lines


def as_text(result: Result) -> str:
    lines = ["faults were injected for %.1f s (seed %d); the events left needed %.1f s after that:" % (
        result.run_ms / 1000, result.seed, result.drain_ms / 1000)]
    counts = faults_of(result)
    lines += ["  %6d %s" % (counts[member], text) for _, member, text in FAULTS if counts[member]]
    for source in result.sources:
        lines += text_of_source(source)
    lines += notes(result)
    wrong = problems(result)
    lines += ["WRONG:", *wrong] if wrong else ["all is well: no event lost or doubled, none left locked, no process left "
                                               "running"]
    return "\n".join(lines) + "\n"


# ---- as JSON ----

def source_as_json(source: SourceCount) -> dict:
    total = add_up(source)
    return {"id": source.id, "fed": source.fed, "completed": source.totals.completed,
            "removed": source.totals.removed_by_stage, "dead": source.stored["dead"], "delayed": source.stored["delayed"],
            "waiting": total.waiting, "lost": total.lost, "doubled": total.doubled, "locked": total.locked,
            "repeated": total.repeated,
            "stages": [{"name": stage.name, "calls": stage.calls, **stage.totals._asdict()} for stage in source.stages]}


def as_json(result: Result) -> str:
    wrong = problems(result)
    return json.dumps({"good": not wrong, "wrong": wrong, "notes": notes(result), "seed": result.seed,
                       "run_ms": result.run_ms, "drain_ms": result.drain_ms, "left_running": len(result.left_running),
                       "faults": faults_of(result), "sources": [source_as_json(source) for source in result.sources]},
                      separators=(",", ":")) + "\n"
