# SPDX-License-Identifier: MIT
"""What happened to each event of a source, counted after a run from the store and from the recorder's files.

An event that went in is in the store, or was recorded, or was removed. The events that are neither stored nor recorded must
be as many as the store counts as removed; those that are recorded and not stored as many as it counts as completed. So a
lost event cannot hide behind one that came twice. Pure.
"""
import collections
import dataclasses
from collections.abc import Callable, Iterable

from store import Event, SourceTotals, StageTotals


@dataclasses.dataclass
class StageCount:
    name: str
    calls: int = 0  # answers seen, in all starts of the daemon
    totals: StageTotals = StageTotals()


@dataclasses.dataclass
class SourceCount:
    id: str
    fed: int  # events that went in
    totals: SourceTotals = SourceTotals()
    stored: collections.Counter = dataclasses.field(default_factory=collections.Counter)  # in the store, by state
    dead: collections.Counter = dataclasses.field(default_factory=collections.Counter)  # of these the dead, by reason
    recorded: int = 0  # different events that were recorded and are no longer in the store
    recorder_repeats: int = 0
    unknown: int = 0  # stored or recorded, and never fed
    stored_twice: int = 0
    stages: list[StageCount] = dataclasses.field(default_factory=list)  # without the recorder


@dataclasses.dataclass
class Sum:
    lost: int
    doubled: int
    locked: int
    waiting: int
    came_through: int
    repeated: int


def count(source: SourceCount, number_of: Callable[[str], int | None], events: Iterable[Event],
          recorded: Iterable[str]) -> None:
    """Fills in what the events in the store and the recorded uids say. number_of: None for an event never fed."""
    in_store, at_recorder = set(), set()
    for event in events:
        if event.source != source.id:
            continue
        source.stored[event.state] += 1
        if event.state == "dead":
            source.dead[event.reason] += 1
        number = number_of(event.uid)
        source.unknown += number is None
        source.stored_twice += number in in_store
        in_store.add(number)
    for uid in recorded:
        number = number_of(uid)
        source.unknown += number is None
        source.recorder_repeats += number in at_recorder
        at_recorder.add(number)
    source.recorded = len(at_recorder - in_store - {None})


def beyond(more: int, less: int) -> int:
    return max(0, more - less)


def add_up(source: SourceCount) -> Sum:
    totals, stored = source.totals, source.stored.total()
    removed = totals.removed_by_stage + totals.removed_by_operator
    gone = beyond(source.fed, stored)
    lost = beyond(gone, source.recorded + removed)  # neither stored, nor recorded, nor removed
    lost += beyond(source.recorded, totals.completed)  # gone without an answer that was committed
    lost += beyond(totals.live, stored)
    doubled = beyond(totals.completed, source.recorded) + beyond(source.recorded + removed, gone)
    doubled += beyond(totals.fetched, source.fed) + beyond(stored, totals.live)
    doubled += source.unknown + source.stored_twice
    repeated = 0
    for stage in source.stages:
        committed = sum(stage.totals) - stage.totals.crashed
        repeated += beyond(stage.calls, committed) + stage.totals.crashed
    return Sum(lost, doubled, locked=source.stored["running"], waiting=source.stored["ready"],
               came_through=totals.completed + totals.removed_by_stage, repeated=repeated)
