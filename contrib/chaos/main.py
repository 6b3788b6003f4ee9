# SPDX-License-Identifier: MIT
"""The helper program of `eventpipe chaos`. It runs the stages of a configuration on made-up events and a temporary store
while it kills their processes. src/cli/chaos.c gives it one JSON object on stdin.

There are two processes: the run, and this one, which cleans up after it. If the run is killed, this process becomes the
parent of everything the run has started, and kills it. If this process is killed, the run gets a signal and cleans up
itself. The live instance is not touched: the run has its own folder, store, socket, session and instance name.

Exit status: 0 no problem found, 1 something is wrong, 2 wrong usage.
"""
import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile

import feed
import processes
import report
import run_config
from daemon import RunFailed
from run import Options, Run

SECONDS = 20
FOLDER_BYTES_MAX = 80  # so that a socket's name fits
KILL_PATIENCE_S = 60
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DONE, NO, USAGE = 0, 1, 2


class Interrupted(Exception):
    """A signal ends the run."""


def say(text: str) -> None:
    print("eventpipe: " + text, file=sys.stderr, flush=True)


# ---- what is asked for ----

class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        say(message.removeprefix("argument "))
        sys.exit(USAGE)


def number_from(least: int, most: int):
    """A type for argparse."""
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError('expected a number from %d to %d, found "%s"' % (least, most, text))
        return int(text)
    return read


def sample_of(path: str) -> list[bytes]:
    try:
        return feed.read_sample(path)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError("%s: %s" % (path, getattr(error, "strerror", None) or error)) from None


def read_arguments() -> argparse.Namespace:
    parser = Parser(prog="eventpipe chaos", allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--yes", action="store_true")
    parser.add_argument("--seconds", type=number_from(1, 24 * 60 * 60), default=SECONDS)
    parser.add_argument("--events", type=number_from(1, 100_000_000), default=0)
    parser.add_argument("--seed", type=number_from(0, 2**32 - 1), default=None)
    parser.add_argument("--sample", type=sample_of, default=[])
    parser.add_argument("source", nargs="?")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = secrets.randbits(32)
    return arguments


def find_daemon(eventpipe: str) -> str | None:
    """Beside eventpipe itself, as installed, or in PATH."""
    folder = os.path.dirname(eventpipe)
    beside = (os.path.join(folder, "eventpiped"), os.path.join(folder, "../sbin/eventpiped"))
    return next((path for path in beside if os.access(path, os.X_OK)), None) or shutil.which("eventpiped")


def ask_for_consent(config_path: str, wanted: list[dict]) -> int:
    """Prints what would run."""
    say("chaos runs these stages of %s for real, over and over, with made-up events, and kills them while they work. What "
        "they do outside of eventpipe takes effect. Give --yes to allow that:" % config_path)
    for source in wanted:
        for stage in source["stages"]:
            kind = next(key for key in ("exec", "plugin", "url") if key in stage)
            what = " ".join(map(str, stage[kind])) if kind == "exec" else stage[kind]
            say("  %s/%s: %s %s" % (source["id"], stage["name"], "http" if kind == "url" else kind, what))
    return USAGE


# ---- the run's process ----

def interrupt(number: int, _frame: object) -> None:
    raise Interrupted("interrupted by %s: nothing is left of the run" % signal.Signals(number).name)


def remove_traces(places: run_config.Places) -> None:
    """Everything of the run that is not a process."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(places.segment)
    shutil.rmtree(places.folder, ignore_errors=True)


def be_the_run(arguments: argparse.Namespace, plan: dict, wanted: list[dict], options: Options,
               places: run_config.Places, parent: int) -> int:
    status = NO
    try:
        for number in ENDING:
            signal.signal(number, interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        os.setsid()
        processes.adopt_orphans()
        processes.end_with_parent(signal.SIGTERM, parent)
        result = Run(plan["config"], wanted, plan["payload_bytes"], places, options).run()
        sys.stdout.write(report.as_json(result) if arguments.json else report.as_text(result))
        sys.stdout.flush()
        status = NO if report.problems(result) else DONE
    except (Interrupted, RunFailed, OSError) as failure:
        say(str(failure))
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        processes.kill_children(KILL_PATIENCE_S)
        if os.getppid() != parent:  # no other process will
            remove_traces(places)
    return status


def wait_for(run: int) -> int:
    """Waits for the run; a signal to this process makes it end the run. The run's exit status."""
    while True:
        pid, status = os.waitpid(run, os.WNOHANG)
        if pid == run:
            break
        number = signal.sigwait((signal.SIGCHLD, *ENDING))
        if number != signal.SIGCHLD:
            os.kill(run, signal.SIGTERM)
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    say("the run was ended by signal %d: nothing is left of it" % os.WTERMSIG(status))
    return NO


# ---- the whole ----

def make_places() -> run_config.Places:
    base = os.environ.get("TMPDIR", "")
    if not base.startswith("/") or len(os.fsencode(base)) > FOLDER_BYTES_MAX - len("/eventpipe-chaos.XXXXXXXX"):
        base = "/tmp"
    return run_config.Places(tempfile.mkdtemp(prefix="eventpipe-chaos.", dir=base))


def start(arguments: argparse.Namespace, plan: dict, wanted: list[dict], options: Options) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started us may ignore it
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, *ENDING))
    places = make_places()
    say("injecting faults for %d s into the stages of %s, seed %d, in %s" % (
        options.seconds, plan["config_path"], options.seed, places.folder))
    try:
        processes.adopt_orphans()
        parent = os.getpid()
        run = os.fork()
        if run == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
            status = NO
            try:
                status = be_the_run(arguments, plan, wanted, options, places, parent)
            finally:
                sys.stderr.flush()
                os._exit(status)
        return wait_for(run)
    finally:
        processes.kill_children(KILL_PATIENCE_S)
        remove_traces(places)


def main() -> int:
    arguments = read_arguments()
    plan = json.load(sys.stdin)
    wanted = [source for source in plan["config"]["sources"] if arguments.source in (None, source["id"])]
    if not arguments.yes:
        return ask_for_consent(plan["config_path"], wanted)
    daemon = find_daemon(plan["eventpipe"])
    if not daemon:
        say("eventpiped is neither beside %s nor in PATH" % plan["eventpipe"])
        return NO
    os.environ.pop("EVENTPIPE_CHAOS_HELPER", None)  # not for the stages
    options = Options(arguments.seconds, arguments.events, arguments.seed, arguments.sample, plan["eventpipe"], daemon,
                      plan["longest_timeout_ms"] / 1000, plan["drain_timeout_ms"] / 1000)
    return start(arguments, plan, wanted, options)


if __name__ == "__main__":
    sys.exit(main())
