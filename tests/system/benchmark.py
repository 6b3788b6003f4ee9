#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The benchmark runs: each figure is measured, shown in the table, and written as JSON, Markdown and a chart.

In its smallest form, and nothing is said about speed: that is what `make bench-check` is for.
"""
import json
import os
import re
import shutil
import subprocess
import sys

from harness import BUILD, DIRECTORY, SOURCE, check, equal, finish

BENCH = os.path.join(SOURCE, "contrib", "bench")
sys.path.insert(0, os.path.join(SOURCE, "contrib"))
import bench_figures
import bench_report

os.chdir(DIRECTORY)


def bench(*options, code=0):
    done = subprocess.run([sys.executable, "-B", BENCH, "--build", os.path.abspath(BUILD), *options],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    equal(done.returncode, code, "exit status of bench %s, which said: %s" % (" ".join(options), done.stderr))
    return done


def verdicts(text):
    return re.findall(r" (holds|MISSES)$", text, re.MULTILINE)


# ---- all figures, and all that can be written; where each process takes seconds to end, some of the figures
FIGURES = ["throughput", "exec", "latency"] if "asan" in os.environ.get("sanitizers", "") else list(bench_figures.ALL)
with open("document.md", "w") as file:
    file.write("before\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nafter\n")
done = bench(*FIGURES, "--smallest", "--json", "out.json", "--markdown", "out.md", "--document", "document.md", "--chart", "out.svg")
with open("out.json") as file:
    result = json.load(file)
equal(list(result["titles"]), FIGURES, "figures")
equal([name for name in ("cpu", "cores", "kernel", "filesystem", "disk") if name not in result["machine"]], [], "missing")
equal(sorted(result["versions"]), ["compiler", "eventpipe", "sqlite"], "versions")
for row in result["rows"]:
    check(row["min"] <= row["max"] and row["what"] in done.stdout, "a row: %r" % row)
    check(("ratio" in row) == ("limit" in row) and ("holds" in row) == ("target" in row), "a row: %r" % row)
for name, title in result["titles"].items():
    check(title in done.stdout and any(row["figure"] == name for row in result["rows"]), "the table has " + title)
rated = [row["holds"] for row in result["rows"] if "holds" in row]
equal([word == "holds" for word in verdicts(done.stdout)], rated, "verdicts in the table")
check("%d of %d targets hold" % (sum(rated), len(rated)) in done.stdout, "the sum is said")
with open("document.md") as file, open("out.md") as markdown:
    equal(file.read(), "before\n<!-- benchmark -->\n%s<!-- /benchmark -->\nafter\n" % markdown.read(), "the document")
if shutil.which("gnuplot"):
    with open("out.svg") as file:
        check("</svg>" in file.read(), "a chart")
else:
    check("no chart" in done.stderr, "said that there is no chart: " + done.stderr)
equal([name for name in os.listdir(".") if name.startswith("eventpipe-bench")], [], "left behind")

# ---- what was written can be shown again; a missed target is told by --check alone
equal(bench("--from", "out.json").stdout, done.stdout, "the stored result")
for row in result["rows"]:
    row.update({"holds": True} if "holds" in row else {})
for holds in (True, False):
    next(row for row in result["rows"] if "holds" in row)["holds"] = holds
    with open("rated.json", "w") as file:
        json.dump(result, file)
    equal("MISSES" in bench("--from", "rated.json", "--check", code=0 if holds else 1).stdout, not holds, "a miss is shown")

# ---- how a row is made
limit, target = ("limit", "per_s"), bench_figures.Target("least", 1.0)
rounds = {"own": [{"per_s": 10}, {"per_s": 30}, {"per_s": 20}], "limit": [{"per_s": 10}, {"per_s": 20}, {"per_s": 40}]}
row = bench_report.make_row(bench_figures.Figure("f", "F", {}, []), bench_figures.Row("w", "own", "per_s", "/s", limit, target),
                            rounds)
equal([row[name] for name in ("median", "min", "max", "limit", "ratio", "ratio_min", "ratio_max", "holds")],
      [20, 10, 30, 20, 1.0, 0.5, 1.5, True], "median and spread; the ratio is that of each round")
row = bench_report.make_row(bench_figures.Figure("f", "F", {}, []),
                            bench_figures.Row("w", "own", ("us", 99), "us", None, bench_figures.Target("most", 98)),
                            {"own": [{"us": list(range(51, 101))}, {"us": list(range(1, 51))}]})
equal([row[name] for name in ("median", "min", "max", "holds")], [99, 50, 100, False], "a percentile is of all rounds")

# ---- what is refused
check("no figure is called speed" in bench("speed", code=2).stderr, "an unknown figure is named")
check("bench-alone" in subprocess.run([sys.executable, "-B", BENCH, "--build", DIRECTORY, "throughput"],
                                      stderr=subprocess.PIPE, text=True).stderr, "programs that are not there are named")
finish()
