# SPDX-License-Identifier: MIT
"""What the benchmark runs on: CPU, memory, kernel, file system, disk."""
import os
import platform


def read(path, default=""):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return default


def cpu_name():
    for line in read("/proc/cpuinfo").split("\n"):
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.machine()


def memory_gib():
    for line in read("/proc/meminfo").split("\n"):
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) / (1 << 20), 1)
    return None


def mount_of(directory):
    """(file system, options, device number) of the directory."""
    device = os.stat(directory).st_dev
    number = "%d:%d" % (os.major(device), os.minor(device))
    for line in read("/proc/self/mountinfo").split("\n"):
        left, _, right = line.partition(" - ")
        if left.split()[2:3] == [number]:
            return right.split()[0], left.split()[5], number
    return "unknown file system", "", number


def disk(number):
    """The block device in a few words; "" when there is none to be seen (tmpfs, overlay, a container)."""
    place = os.path.realpath("/sys/dev/block/" + number)
    if not os.path.isdir(place):
        return ""
    if not os.path.isdir(place + "/queue"):  # a partition: the disk is above
        place = os.path.dirname(place)
    model = read(place + "/device/model") or os.path.basename(place)
    kind = "rotating" if read(place + "/queue/rotational") == "1" else "solid state or virtual"
    return "%s (%s, write cache %s)" % (model, kind, read(place + "/queue/write_cache", "unknown"))


def describe(directory):
    system, options, number = mount_of(directory)
    return {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0)), "memory_gib": memory_gib(),
            "kernel": "%s %s" % (platform.system(), platform.release()), "filesystem": "%s (%s)" % (system, options),
            "disk": disk(number)}
