# SPDX-License-Identifier: MIT
"""What an instance costs: CPU, wake-ups and private memory of each. Reads /proc only."""
import os


def process_tree(root):
    """The process and all its descendants, those that live."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry) as file:
                    fields = file.read().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] not in "ZX":
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, left = [], [root]
    while left:
        pid = left.pop(0)
        found.append(pid)
        left += sorted(children.get(pid, []))
    return found


def title(pid):
    with open("/proc/%d/cmdline" % pid, "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace").strip()


def cpu_and_wakes(pid):
    """Nanoseconds on a CPU, and voluntary context switches, of all its threads so far."""
    cpu = wakes = 0
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/schedstat" % (pid, task)) as file:
            cpu += int(file.read().split()[0])
        with open("/proc/%d/task/%s/status" % (pid, task)) as file:
            wakes += sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
    return cpu, wakes


def private_bytes(pid):
    """Memory that is this process's alone; None when it cannot be read, since it has just ended or is another user's."""
    try:
        with open("/proc/%d/smaps_rollup" % pid) as file:
            lines = [line.split() for line in file]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return sum(int(line[1]) for line in lines if line[0] in ("Private_Clean:", "Private_Dirty:")) * 1024


class Memory:
    """The most private memory of each process of an instance, by title, as often as it is asked to look."""

    def __init__(self):
        self.most = {}

    def look(self, root):
        for pid in process_tree(root):
            found = private_bytes(pid)
            if found is not None:
                self.most[pid] = max(found, self.most.get(pid, 0))

    def largest(self):
        return max(self.most.values(), default=0)
