# SPDX-License-Identifier: MIT
"""One measurement: a program of the benchmark in a directory of its own on the disk that is measured."""
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import bench_instance

HERE = os.path.dirname(os.path.abspath(__file__))
LOOK_EVERY_S = 0.1
START_PATIENCE_S = 120


class Failed(Exception):
    """A program of the benchmark failed: the message says which, and what it said."""


class Bench:
    """Where the programs are and where their files go; everything made there is gone after close()."""

    def __init__(self, build, directory):
        self.build = os.path.abspath(build)
        self.directory = tempfile.mkdtemp(prefix="eventpipe-bench-", dir=os.path.abspath(directory))
        self.quick = "/dev/shm" if os.access("/dev/shm", os.W_OK) else self.directory
        self.quick = tempfile.mkdtemp(prefix="eventpipe-bench-", dir=self.quick)
        self.serial = itertools.count()
        self.filled = {}

    def close(self):
        for directory in (self.directory, self.quick):
            shutil.rmtree(directory, ignore_errors=True)

    def path(self, program):
        return os.path.join(self.build, "contrib", program)

    def program(self, name, *arguments, watch=None):
        """Runs it and returns its JSON line. watch: called with its pid while it runs."""
        process = subprocess.Popen([self.path(name), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            while watch is not None and process.poll() is None:
                watch(process.pid)
                time.sleep(LOOK_EVERY_S)
            out, messages = process.communicate()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode != 0:
            raise Failed("%s %s: exit %d: %s" % (name, " ".join(map(str, arguments)), process.returncode, messages.strip()))
        return json.loads(out)

    def fresh(self, quick=False):
        """A path for a store or table, in a directory that discard() removes."""
        place = os.path.join(self.quick if quick else self.directory, str(next(self.serial)))
        os.mkdir(place)
        return os.path.join(place, "store.db")

    def discard(self, path):
        shutil.rmtree(os.path.dirname(path))

    # ---- the limits

    def alone(self, *arguments, quick=False):
        path = self.fresh(quick)
        try:
            return self.program("bench-alone", "--file", path, *arguments)
        finally:
            self.discard(path)

    def append(self, *arguments):
        path = self.fresh()
        try:
            return self.program("bench-append", "--file", path, *arguments)
        finally:
            self.discard(path)

    # ---- the pipeline

    def pipeline(self, *arguments, memory=False):
        if memory:
            return self.program("bench-pipeline", "--store", "memory:", *arguments)
        path = self.fresh()
        try:
            return self.program("bench-pipeline", "--store", "sqlite:" + path, *arguments)
        finally:
            self.discard(path)

    def fill(self, name, *arguments):
        """A store that stays until empty() is called, and how many events it ever had."""
        if name not in self.filled:
            path = self.fresh()
            filled = self.program("bench-fill", "--file", path, *arguments)
            with open(path, "rb") as file:
                os.fsync(file.fileno())  # or the disk would be busy with it while something else is measured
            self.filled[name] = [path, filled["events"]]
        return self.filled[name]

    def beside(self, name, events, *arguments, watch=False):
        """The pipeline on a store that fill() made: as many events come as go. watch: sizes and memory too."""
        store = self.filled[name]
        path, memory, wal = store[0], bench_instance.Memory(), [0]

        def look(pid):
            memory.look(pid)
            wal[0] = max(wal[0], size(path + "-wal"))
        found = self.program("bench-pipeline", "--store", "sqlite:" + path, "--already", store[1], "--events", events,
                             *arguments, watch=look if watch else None)
        store[1] += events
        if watch:
            found.update(private_mib=memory.largest() / (1 << 20), wal_mib=wal[0] / (1 << 20),
                         store_mib=size(path) / (1 << 20))
        return found

    def empty(self, name):
        if name in self.filled:
            self.discard(self.filled.pop(name)[0])

    # ---- the daemon with nothing to do

    def idle(self, seconds):
        """CPU in per cent of a core, wake-ups a second and private MiB of an instance that waits for a file to grow."""
        path = self.fresh()
        directory = os.path.dirname(path)
        lines, config = os.path.join(directory, "lines"), os.path.join(directory, "config.yaml")
        log = os.path.join(directory, "log")
        stage = {"plugin": self.path("bench_plugin.so")}
        with open(lines, "w"), open(config, "w") as file:
            json.dump({"instance": os.path.basename(self.directory), "storage": "sqlite:" + path,
                       "control": os.path.join(self.quick, "control"), "sources":
                       [{"id": "file", "type": "file", "path": lines,
                         "stages": [dict(stage, name=name) for name in ("s1", "s2", "s3")]}]}, file)
        with open(log, "w") as file:
            daemon = subprocess.Popen([os.path.join(self.build, "eventpiped"), "-c", config], stdin=subprocess.DEVNULL,
                                      stdout=file, stderr=file)
        try:
            self.wait_up(config, daemon, log)
            return weigh(daemon.pid, seconds)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()
            self.discard(path)

    def wait_up(self, config, daemon, log):
        """Waits until every worker has nothing to do, and a moment more for what a start leaves to be done."""
        deadline = time.monotonic() + START_PATIENCE_S
        while True:
            status = subprocess.run([os.path.join(self.build, "eventpipe"), "-c", config, "status", "--json"],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            if status.returncode == 0:
                workers = [worker["state"] for source in json.loads(status.stdout)["sources"]
                           for stage in source["stages"] for worker in stage["workers"]]
                if workers and all(state == "idle" for state in workers):
                    break
            if daemon.poll() is not None or time.monotonic() > deadline:
                with open(log) as file:
                    raise Failed("the daemon did not start: " + file.read())
            time.sleep(LOOK_EVERY_S)
        time.sleep(2)


def size(path):
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def weigh(root, seconds):
    pids = bench_instance.process_tree(root)
    before = {pid: bench_instance.cpu_and_wakes(pid) for pid in pids}
    begin = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begin
    processes = []
    for pid in pids:
        cpu, wakes = bench_instance.cpu_and_wakes(pid)
        private = bench_instance.private_bytes(pid)
        processes.append({"process": bench_instance.title(pid), "cpu_percent": (cpu - before[pid][0]) / 1e7 / took,
                          "wakes_per_s": (wakes - before[pid][1]) / took, "private_mib": (private or 0) / (1 << 20)})
    found = {name: sum(process[name] for process in processes) for name in ("cpu_percent", "wakes_per_s", "private_mib")}
    return dict(found, largest_mib=max(process["private_mib"] for process in processes), processes=processes)


def python():
    return sys.executable or "python3"
