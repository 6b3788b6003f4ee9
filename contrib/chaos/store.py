# SPDX-License-Identifier: MIT
"""Reads the SQLite store of a run, each time in one read-only transaction. All names of tables and columns are here."""
import contextlib
import sqlite3
from typing import NamedTuple

STATES = ("ready", "running", "delayed", "held", "dead")  # by number
REASONS = ("", "exhausted", "expired", "rejected", "crashed", "corrupt")  # by number: why an event is dead

SOURCES = "SELECT name, fetched, completed, removed_by_stage, removed_by_operator, live, delayed, held, dead FROM source"
STAGES = ("SELECT source.name, stage.name, processed, retried, stage.removed, rejected, failed, crashed "
          "FROM stage JOIN source ON source.id = stage.source")
# An event is locked while its token is one of the last start; a token of an older start is void.
EVENTS = """
SELECT source.name, uid, token >= (SELECT start_number FROM settings) << 40, 0, done
    FROM progress JOIN event USING (seq) JOIN source ON source.id = event.source
UNION ALL
SELECT source.name, uid, state, reason, done
    FROM suspended JOIN event USING (seq) JOIN source ON source.id = event.source"""


class SourceTotals(NamedTuple):
    fetched: int = 0
    completed: int = 0  # by the last stage
    removed_by_stage: int = 0
    removed_by_operator: int = 0
    live: int = 0  # in the store now
    delayed: int = 0
    held: int = 0
    dead: int = 0

    def ended(self) -> int:
        return self.completed + self.removed_by_stage + self.removed_by_operator + self.dead


class StageTotals(NamedTuple):
    processed: int = 0
    retried: int = 0
    removed: int = 0
    rejected: int = 0
    failed: int = 0
    crashed: int = 0


class Event(NamedTuple):
    source: str
    uid: str
    state: str
    reason: str
    stages_done: int


class Snapshot(NamedTuple):
    sources: dict[str, SourceTotals]
    stages: dict[tuple[str, str], StageTotals]  # by source and stage
    events: list[Event]  # what is in the store, in no order


def read(path: str, with_events: bool) -> Snapshot | None:
    """What is stored now; None when it cannot be read at this moment (not made yet, being recovered)."""
    try:
        with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % path, uri=True, timeout=1)) as database:
            database.execute("BEGIN")
            sources = {row[0]: SourceTotals(*row[1:]) for row in database.execute(SOURCES)}
            stages = {(row[0], row[1]): StageTotals(*row[2:]) for row in database.execute(STAGES)}
            rows = database.execute(EVENTS).fetchall() if with_events else []
    except sqlite3.DatabaseError:
        return None
    return Snapshot(sources, stages, [Event(source, uid, STATES[state], REASONS[reason], done.count("\n"))
                                      for source, uid, state, reason, done in rows])
