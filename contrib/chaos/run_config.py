# SPDX-License-Identifier: MIT
"""The configuration of a run. It is the user's own with a separate instance, store and socket, a file in place of each
source, short pauses, and the recorder after the last stage. Keys that this file does not know stay as they are.

Of a source it uses only the stages, the page size, and where its events have type, time and address. Pure.
"""
import json
import os
import re
from typing import NamedTuple

import recorder

PAUSE = {"min": "50ms", "max": "500ms"}
MAX_BACKOFF = {"max_backoff": PAUSE["max"]}
CRASHES_MAX = 50  # injected kills count as crashes of the event that is being processed
# Keys of the configuration file
REPLACED = ("instance", "storage", "control", "control_mode", "sources")
RETRY, RESTART, MAX_CRASHES = "retry", "restart", "max_crashes"
PAGE_SIZE = "page_size"
EVENT_MEMBERS = ("event_type", "timestamp", "address")  # pointers in sources of these types only
TYPES_WITH_EVENT_MEMBERS = ("http", "file")
TOKEN_VARIABLE = "token_env"
# What libyaml does not take in a text, though JSON has it there as it is.
NOT_IN_YAML = re.compile("[\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


class Places(NamedTuple):
    """The files of a run, all in one folder."""
    folder: str

    def file(self, name: str) -> str:
        return os.path.join(self.folder, name)

    @property
    def config(self) -> str:
        return self.file("run.yaml")

    @property
    def store(self) -> str:
        return self.file("store.db")

    @property
    def control(self) -> str:
        return self.file("control")

    @property
    def log(self) -> str:
        return self.file("log")

    @property
    def instance(self) -> str:
        """Made from the folder's name, which is unique."""
        return "chaos-%s-%d" % (self.folder.rpartition(".")[2], os.getuid())

    @property
    def segment(self) -> str:
        return "/dev/shm/eventpipe-" + self.instance

    def feed(self, index: int) -> str:
        return self.file("feed.%d" % index)

    def recorded(self, index: int) -> str:
        return self.file("recorded.%d" % index)


def recorder_stage(path: str) -> dict:
    return {"name": recorder.STAGE_NAME, "exec": recorder.command(path), RETRY: PAUSE, RESTART: MAX_BACKOFF,
            MAX_CRASHES: 0, "timeout": "0s"}


def stage_of(stage: dict) -> dict:
    return {**stage, RETRY: PAUSE, RESTART: MAX_BACKOFF, MAX_CRASHES: CRASHES_MAX}


def source_of(source: dict, places: Places, index: int) -> dict:
    kept = [PAGE_SIZE] if PAGE_SIZE in source else []
    if source.get("type") in TYPES_WITH_EVENT_MEMBERS:
        kept += [key for key in EVENT_MEMBERS if key in source]
    return {"id": source["id"], "type": "file", "path": places.feed(index), "format": "json", RETRY: PAUSE,
            **{key: source[key] for key in kept},
            "stages": [stage_of(stage) for stage in source["stages"]] + [recorder_stage(places.recorded(index))]}


def configuration(user: dict, wanted: list[dict], places: Places) -> dict:
    """For these of the user's sources."""
    return {**{key: value for key, value in user.items() if key not in REPLACED},
            "instance": places.instance, "storage": "sqlite:" + places.store, "control": places.control,
            "sources": [source_of(source, places, index) for index, source in enumerate(wanted)]}


def as_yaml(config: dict) -> str:
    """JSON is YAML, but for a few characters that it must escape."""
    text = json.dumps(config, ensure_ascii=False, indent=1)
    return NOT_IN_YAML.sub(lambda match: "\\u%04x" % ord(match[0]), text) + "\n"


def unwanted_tokens(user: dict, config: dict) -> set[str]:
    """Variables with tokens of real sources, which the stages must not see."""
    def variables(part: object) -> set[str]:
        if isinstance(part, list):
            return set().union(*map(variables, part))
        if not isinstance(part, dict):
            return set()
        return set().union(*map(variables, part.values()), {part[TOKEN_VARIABLE]} if TOKEN_VARIABLE in part else ())
    return {name for name in variables(user) - variables(config) if isinstance(name, str)}
