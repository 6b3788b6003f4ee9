#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What an instance costs while it has nothing to do: CPU, wake-ups and private memory of each of its processes.

    contrib/idle.py [-s SECONDS] PID        PID: the supervisor's (eventpipe status shows it)

Reads /proc only. CPU is in per cent of one core; wake-ups are voluntary context switches, all threads together.
"""
import argparse
import os
import time


def family(root):
    """The supervisor and all its descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry) as file:
                    children.setdefault(int(file.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
            except FileNotFoundError:
                pass
    found, left = [], [root]
    while left:
        pid = left.pop(0)
        found.append(pid)
        left += sorted(children.get(pid, []))
    return found


def look(pid):
    """CPU ticks and wake-ups so far."""
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rsplit(")", 1)[1].split()
    wakes = 0
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/status" % (pid, task)) as file:
            wakes += sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
    return int(fields[11]) + int(fields[12]), wakes


def private_kib(pid):
    with open("/proc/%d/smaps_rollup" % pid) as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Clean", "Private_Dirty")))


def title(pid):
    with open("/proc/%d/cmdline" % pid, "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace").strip()[:48]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-s", "--seconds", type=float, default=30)
    parser.add_argument("pid", type=int)
    arguments = parser.parse_args()
    pids = family(arguments.pid)
    before = {pid: look(pid) for pid in pids}
    time.sleep(arguments.seconds)
    after = {pid: look(pid) for pid in pids}
    ticks = os.sysconf("SC_CLK_TCK")
    print("%8s %8s %10s %12s  %s" % ("PID", "CPU %", "WAKES/s", "PRIVATE KiB", "PROCESS"))
    totals = [0.0, 0.0]
    for pid in pids:
        cpu = (after[pid][0] - before[pid][0]) / ticks / arguments.seconds * 100
        wakes = (after[pid][1] - before[pid][1]) / arguments.seconds
        totals = [totals[0] + cpu, totals[1] + wakes]
        print("%8d %8.3f %10.2f %12d  %s" % (pid, cpu, wakes, private_kib(pid), title(pid)))
    print("%8s %8.3f %10.2f" % ("all", *totals))


if __name__ == "__main__":
    main()
