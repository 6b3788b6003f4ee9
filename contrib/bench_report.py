# SPDX-License-Identifier: MIT
"""What the measurements come to: rows with median and spread beside limit and target; as text, Markdown and a chart."""
import statistics
import subprocess


def percentile(values, part):
    """The value that `part` per cent of them do not exceed."""
    values = sorted(values)
    return values[max(0, -int(-len(values) * part // 100) - 1)]


def taken(rounds, value):
    """A measurement's value in each round, and the one that stands for all: their median, or what all rounds together say."""
    if isinstance(value, str):
        each = [found[value] for found in rounds]
        return each, statistics.median(each)
    name, part = value
    return [percentile(found[name], part) for found in rounds], percentile([x for found in rounds for x in found[name]], part)


def classify(target, number):
    return number >= target.number if target.sense == "least" else number <= target.number


def make_row(figure, row, rounds):
    """One line of the table, as JSON has it."""
    each, middle = taken(rounds[row.key], row.value)
    out = {"figure": figure.name, "what": row.label, "unit": row.unit, "median": middle, "min": min(each), "max": max(each)}
    rated = middle
    if row.limit is not None:
        if isinstance(row.limit, tuple):
            limits, out["limit"] = taken(rounds[row.limit[0]], row.limit[1])
        else:
            limits, out["limit"] = [row.limit] * len(each), row.limit
        ratios = [value / limit for value, limit in zip(each, limits)]
        # of the same round, so that what slows both down cancels out; percentiles need all rounds
        rated = statistics.median(ratios) if isinstance(row.value, str) else middle / out["limit"]
        out.update(ratio=rated, ratio_min=min(ratios), ratio_max=max(ratios))
    if row.target:
        out["target"] = {"sense": row.target.sense, "number": row.target.number, "aim": row.target.aim}
        out["holds"] = classify(row.target, rated)
    return out


def number(value, unit=""):
    """Three digits or so, thousands apart."""
    text = "{:,.0f}".format(value) if abs(value) >= 100 else "%.3g" % value
    return text + (unit if unit in ("/s", "%") else " " + unit if unit else "")


def cells(row):
    """The row's texts for the columns: value, limit, ratio, target, verdict."""
    value = number(row["median"], row["unit"])
    limit = number(row["limit"], row["unit"]) if "limit" in row else ""
    if "ratio" in row:
        spread = "%.2f (%.2f-%.2f)" % (row["ratio"], row["ratio_min"], row["ratio_max"])
    else:
        spread = "(%s-%s)" % (number(row["min"]), number(row["max"]))
    target = verdict = ""
    if "target" in row:
        target = "%s %g" % ("at least" if row["target"]["sense"] == "least" else "at most", row["target"]["number"])
        if row["target"]["aim"]:
            target += ", aim %g" % row["target"]["aim"]
        verdict = "holds" if row["holds"] else "MISSES"
    return value, limit, spread, target, verdict


HEADS = ("", "eventpipe", "limit", "ratio (spread)", "target", "")


def stated(result):
    """Machine, versions and settings, in lines."""
    machine, versions, settings = result["machine"], result["versions"], result["settings"]
    return ["%s, %d cores, %s GiB; %s" % (machine["cpu"], machine["cores"], machine["memory_gib"], machine["kernel"]),
            "%s on %s" % (machine["filesystem"], machine["disk"] or "no disk"),
            "eventpipe %s, SQLite %s, compiler %s" % (versions["eventpipe"], versions["sqlite"], versions["compiler"]),
            "up to %(rounds)d rounds in turns, %(events)d events, %(date)s; median, and the spread of the rounds" % settings]


def table(result):
    """For a terminal: a heading for each figure, then its rows."""
    lines, figure = stated(result), None
    rows = [(row, cells(row)) for row in result["rows"]]
    widths = [max([len(HEADS[i + 1])] + [len(c[i]) for _, c in rows]) for i in range(4)]
    first = max([len(row["what"]) for row, _ in rows] + [10]) + 2
    form = "%-{}s %{}s %{}s  %-{}s  %-{}s  %s".format(first, *widths)
    lines += ["", (form % HEADS).rstrip()]
    for row, texts in rows:
        if row["figure"] != figure:
            figure = row["figure"]
            lines.append(result["titles"][figure])
        lines.append((form % ("  " + row["what"], *texts)).rstrip())
    rated = [row for row in result["rows"] if "holds" in row]
    if rated:
        lines += ["", "%d of %d targets hold on this machine" % (sum(row["holds"] for row in rated), len(rated))]
    return "\n".join(lines)


def markdown(result):
    lines = ["| | eventpipe | limit | ratio (spread) | target | |", "| --- | ---: | ---: | --- | --- | --- |"]
    figure = None
    for row in result["rows"]:
        if row["figure"] != figure:
            figure = row["figure"]
            lines.append("| **%s** | | | | | |" % result["titles"][figure])
        lines.append("| %s |" % " | ".join((row["what"], *cells(row))))
    return "\n".join(lines + ["", *(line + "  " for line in stated(result))]).rstrip()


def put_into(path, text):
    """Replaces what stands between the two marks in a Markdown file."""
    begin, end = "<!-- benchmark -->\n", "<!-- /benchmark -->\n"
    with open(path) as file:
        head, mark, rest = file.read().partition(begin)
    old, other_mark, tail = rest.partition(end)
    if not mark or not other_mark:
        raise ValueError("%s: expected the marks %s and %s" % (path, begin.strip(), end.strip()))
    with open(path, "w") as file:
        file.write(head + begin + text + "\n" + end + tail)


# ---- the chart

COLOURS = "set linetype 1 lc rgb '#2a6f97'; set linetype 2 lc rgb '#c9cdd2'; set linetype 3 lc rgb '#e09f3e'"
HEAD = """set terminal svg size 960,{height} dynamic enhanced font 'sans,12' background rgb 'white'
set output '{path}'
{colours}
set style data histograms
set style histogram clustered gap 1 errorbars linewidth 1
set style fill solid 1.0 noborder
set boxwidth 0.9
set bars 0.4
set border 3 lc rgb '#555555'
set tics nomirror out scale 0.5
set grid ytics lc rgb '#e5e5e5' lt 1
set key top right samplen 1 height 0.5
set yrange [0:*]
set offsets -0.3, -0.3, graph 0.25, 0
set multiplot layout {rows},1
"""


def bars(rows, scale):
    """The data of one panel: label, then value, least and most for eventpipe and for each limit."""
    lines = []
    for label, row, limits in rows:
        fields = [row["median"], row["min"], row["max"]]
        for limit in limits:
            fields += [limit, limit, limit]
        lines.append('"%s" %s' % (label, " ".join("%g" % (field / scale) for field in fields)))
    return "\n".join(lines)


def find(result, figure, *labels):
    return [row for row in result["rows"] if row["figure"] == figure and row["what"] in labels]


def rates(result):
    """Rows of the panel of rates: all that are events a second beside one process alone."""
    short = {"synchronous: normal": "normal", "memory:, beside a table in /dev/shm": "memory:",
             "3 exec stages in C": "exec, C", "3 exec stages in Python": "exec, Python",
             "batches of up to 500, beside one process with 100": "beside 100", "both in batches of up to 500": "both 500",
             "both in batches of 100": "both 100", "beside a transaction per event and step": "one by one"}
    rows = []
    for row in result["rows"]:
        if row["figure"] in ("throughput", "synchronous", "exec", "stages", "workers", "payload") and "limit" in row \
                and "a stage, beside" not in row["what"]:
            label = short.get(row["what"], row["what"]).replace("payload of ", "").replace(" a stage", "")
            rows.append((label, row, [row["limit"]]))
    return rows


def latencies(result):
    rows = []
    for part in ("p50", "p99", "p99.9"):
        first = find(result, "latency", part + ", beside one process's four transactions")
        second = find(result, "latency", part + ", beside four times 4 KiB + fdatasync")
        if first and second:
            rows.append((part, first[0], [first[0]["limit"], second[0]["limit"]]))
    return rows


def ratios(result):
    """Everything else that has a limit, as a share of it."""
    rows = []
    for row in result["rows"]:
        if row["figure"] in ("growth", "waiting", "retry") and "ratio" in row:
            label = row["what"].split(", beside")[0].replace(" events standing by", "").replace("concurrency ", "waits, ")
            label = label.replace("every tenth event not processed at first", "every 10th again") \
                .replace("the same, with", "both,")
            rows.append((label, {"median": row["ratio"], "min": row["ratio_min"], "max": row["ratio_max"]}, []))
    return rows


def panel(name, title, unit, rows, scale, names):
    columns = ["'$%s' using 2:3:4:xtic(1) title '%s'" % (name, names[0])]
    for i, label in enumerate(names[1:]):
        columns.append("'' using %d:%d:%d title '%s'" % (5 + 3 * i, 6 + 3 * i, 7 + 3 * i, label))
    return "$%s << EOD\n%s\nEOD\nset title '%s'\nset ylabel '%s'\nplot %s\n" % (
        name, bars(rows, scale), title, unit, ", ".join(columns))


def chart(result, path):
    """Draws it with gnuplot; False when there is no gnuplot or nothing to draw."""
    panels = []
    if rates(result):
        panels.append("set xtics rotate by -25\n" + panel(
            "rates", "Events a second, every answer on disk before the next stage sees it", "thousand/s", rates(result), 1000,
            ("eventpipe", "one process alone, the same row operations")))
    if ratios(result):
        panels.append("set xtics rotate by -25\n" + panel(
            "ratios", "Beside an empty store; work that waits, beside the ideal", "ratio", ratios(result), 1,
            ("eventpipe",)))
    if latencies(result):
        panels.append("set xtics norotate\n" + panel(
            "latencies", "Latency of one event through three stages, 50 a second", "ms", latencies(result), 1000,
            ("eventpipe", "one process, four transactions", "four times 4 KiB + fdatasync")))
    if not panels:
        return False
    script = HEAD.format(path=path, colours=COLOURS, rows=len(panels), height=320 * len(panels)) + "".join(panels)
    try:
        subprocess.run(["gnuplot"], input=script + "unset multiplot\n", text=True, check=True)
    except FileNotFoundError:
        return False
    with open(path) as file:
        lines = [line.rstrip() for line in file]
    with open(path, "w") as file:  # without the blanks that gnuplot leaves at the ends of lines, and of the file
        file.write("\n".join(lines).rstrip() + "\n")
    return True
