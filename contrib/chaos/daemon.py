# SPDX-License-Identifier: MIT
"""The daemon of a run. It is started as a service manager would start it, and again whenever a fault has ended it.

It ends with the process that started it. An end that no fault explains is noted. After a few of them, or when the daemon
never came up, the run fails.
"""
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping

import processes
from faults import Injector

UNEXPECTED_MAX = 5
LOG_BYTES = 700
# Words of the daemon's log
LOG_STORE_HELD = "held by"  # the processes of the start before still hold the store


class RunFailed(Exception):
    """The run cannot go on; the message says why."""


class Daemon:
    def __init__(self, command: list[str], log_path: str, injector: Injector,
                 environment: Callable[[int], Mapping[str, str]] = lambda start: {}):
        """environment: what is added to ours, by the number of the start."""
        self.command, self.log_path, self.injector, self.environment = command, log_path, injector, environment
        self.process: subprocess.Popen | None = None
        self.was_up = False  # since it was started; the caller sets it
        self.killed = self.stopping = False  # its end is expected
        self.unexpected: list[str] = []
        self.found_held = 0  # starts that ended because the store was held
        self.ended_cleanly = False

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    def start(self) -> None:
        self.injector.begin_start()
        parent = os.getpid()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0,
                env={**os.environ, **self.environment(self.injector.start)},
                preexec_fn=lambda: (signal.pthread_sigmask(signal.SIG_SETMASK, ()),
                                    processes.end_with_parent(signal.SIGKILL, parent)))
        self.was_up = False

    def log_tail(self) -> str:
        try:
            with open(self.log_path, "rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
                return log.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def watch(self) -> bool:
        """Starts the daemon again when it has ended; whether it had."""
        status = self.process.poll()
        if status is None:
            return False
        held = status == 1 and not self.was_up and LOG_STORE_HELD in self.log_tail()
        if held and self.injector.start > 1:
            self.found_held += 1
            time.sleep(0.1)  # a new start waits for the store itself, too
        elif not (self.killed and status == -signal.SIGKILL) and not (self.stopping and status == 0):
            self.note_unexpected(status)
        self.killed = self.stopping = False
        self.injector.resume(everything=True)
        self.start()
        return True

    def note_unexpected(self, status: int) -> None:
        how = "signal %d" % -status if status < 0 else "exit status %d" % status
        self.unexpected.append("%s; its last messages: %s" % (how, self.log_tail()))
        if not self.was_up or len(self.unexpected) >= UNEXPECTED_MAX:
            raise RunFailed("the daemon ended by itself: " + self.unexpected[-1])

    def kill(self, whole_instance: bool, choice: float = 0) -> None:
        """Kills the supervisor, or all processes, and starts the daemon again."""
        self.killed = True
        if whole_instance:
            self.injector.kill_instance(self.pid, choice, self.process.wait)
        else:
            self.injector.kill_supervisor(self.pid, self.process.wait)
        self.watch()

    def ask_to_stop(self) -> None:
        """Begins a graceful shutdown; watch() starts the daemon again after it."""
        self.stopping = True
        self.process.send_signal(signal.SIGTERM)

    def stop(self, patience_s: float) -> None:
        """Ends the daemon gracefully and waits for that."""
        self.injector.resume(everything=True)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.ended_cleanly = self.process.wait(patience_s) == 0
        except subprocess.TimeoutExpired:
            self.ended_cleanly = False
        self.process = None if self.ended_cleanly else self.process
