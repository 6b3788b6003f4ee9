#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A small HTTP feed that really long-polls, and misbehaves on demand. For tests.

usage: feed_server.py [--page N] [--shown N] [--mode MODE [--count N]] [--port N] [--no-stdin] [FILE]

FILE holds one JSON value a line; line N is event N (from 1). Prints its port on stdout, and ends when its stdin closes
(not with --no-stdin) or its parent exits. --shown: only so many events exist at first.

  /couchdb/_changes?since=&limit=&timeout=MS   {"results":[{"seq":N,"id":"doc-N","changes":[..],"doc":LINE}],"last_seq":N}
        &form=string or array: the seq of newer and of clustered CouchDBs
  /telegram/getUpdates?offset=&limit=&timeout=S    {"ok":true,"result":[{"update_id":N,"message":LINE}]}
  /array?since=&limit=&timeout=S                   [{"id":N,"event":LINE}]
  /object?after=&limit=&timeout=S                  {"data":{"events":[LINE]},"meta":{"next":"c:N"}}
  /fixed?body=TEXT                                 TEXT, at once, whatever it is
A poll is held until there is an event behind its cursor, or the timeout.

  POST /add        its body's lines become events        GET /show?count=N   N more events exist
  GET /control?mode=MODE&count=N&value=V   the next N polls (0 = all) misbehave:
        notjson empty cutjson (valid HTTP, half the JSON)  cutoff (ends before its Content-Length)  toobig (value bytes)
        slow (value seconds between bytes)  stall (half, then silence)  silent  close (no answer)  gzip  gzipbomb (value)
        pretty (indented)  nocontent  redirect (to value)  deny (401)  forbid (403)  missing (404)  limit (429, Retry-After
        value seconds)  limitdate (429, Retry-After as a date value seconds from now)  fail (500)  unavailable (503)
        normal
  GET /stats       {"polls","held","events","path","headers"}: path and headers of the last poll
"""
import argparse
import ctypes
import email.utils
import gzip
import json
import os
import signal
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PR_SET_PDEATHSIG = 1
STATUSES = {"deny": 401, "forbid": 403, "missing": 404, "limit": 429, "limitdate": 429, "fail": 500, "unavailable": 503}


class Feed:
    """The events, and what the tests want of the next polls."""

    def __init__(self, lines, shown, page):
        self.lines = lines
        self.shown = len(lines) if shown is None else shown
        self.page = page
        self.changed = threading.Condition()
        self.mode, self.mode_count, self.mode_value = "normal", 0, ""
        self.polls = self.held = 0
        self.path, self.headers = "", {}

    def add(self, lines):
        with self.changed:
            self.lines.extend(lines)
            self.shown = len(self.lines)
            self.changed.notify_all()

    def show(self, count):
        with self.changed:
            self.shown = min(len(self.lines), self.shown + count)
            self.changed.notify_all()

    def control(self, mode, count, value):
        with self.changed:
            self.mode, self.mode_count, self.mode_value = mode, count, value

    def take_mode(self, path, headers):
        with self.changed:
            self.polls += 1
            self.path, self.headers = path, headers
            mode, value = self.mode, self.mode_value
            if mode != "normal" and self.mode_count > 0:
                self.mode_count -= 1
                if self.mode_count == 0:
                    self.mode = "normal"
            return mode, value

    def wait(self, after, limit, seconds):
        """(number, line) of the events behind `after`; waits for the first."""
        end = time.monotonic() + seconds
        with self.changed:
            self.held += 1
            while self.shown <= after:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self.changed.wait(left)
            self.held -= 1
            last = min(self.shown, after + min(limit, self.page))
            return [(number, self.lines[number - 1]) for number in range(after + 1, last + 1)]


def leading_number(text):
    """12 of "12", "12-g1AAA", "c:12" and [12,"g1AAA"]; 0 of what has none."""
    text = text.lstrip("c:[")
    digits = ""
    while text[len(digits):len(digits) + 1].isdigit():
        digits += text[len(digits)]
    return int(digits or 0)


def seq_of(number, form):
    return {"string": '"%d-g1AAA/+=="', "array": '[%d,\n "g1AAA=="]'}.get(form, "%d") % number


def couchdb(feed, query):
    since = leading_number(query.get("since", "0"))
    form = query.get("form", "")
    events = feed.wait(since, int(query.get("limit", 100)), int(query.get("timeout", 60000)) / 1000)
    rows = ['{"seq":%s,"id":"doc-%d","changes":[{"rev":"1-%x"}],"doc":%s}' % (seq_of(n, form), n, n, line) for n, line in events]
    last = events[-1][0] if events else since
    return '{"results":[\n%s\n],\n"last_seq":%s}\n' % (",\n".join(rows), seq_of(last, form))


def telegram(feed, query):
    after = max(0, int(query.get("offset") or 1) - 1)
    events = feed.wait(after, int(query.get("limit", 100)), float(query.get("timeout", 0)))
    return '{"ok":true,"result":[%s]}' % ",".join('{"update_id":%d,"message":%s}' % event for event in events)


def array(feed, query):
    events = feed.wait(leading_number(query.get("since", "0")), int(query.get("limit", 100)), float(query.get("timeout", 0)))
    return "[%s]" % ",".join('{"id":%d,"event":%s}' % event for event in events)


def named(feed, query):
    after = leading_number(query.get("after", "0"))
    events = feed.wait(after, int(query.get("limit", 100)), float(query.get("timeout", 0)))
    last = events[-1][0] if events else after
    return '{"data":{"events":[%s]},"meta":{"next":"c:%d"}}' % (",".join(line for _, line in events), last)


def fixed(_feed, query):
    return query.get("body", "")


SHAPES = {"/couchdb/_changes": couchdb, "/telegram/getUpdates": telegram, "/array": array, "/object": named, "/fixed": fixed}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    feed = None

    def log_message(self, *_arguments):
        pass

    def answer(self, body, status=200, headers=(), length=None):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.feed.add([line for line in body.split("\n") if line.strip()])
        self.answer(b"{}")

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        try:
            if url.path == "/control":
                self.feed.control(query["mode"], int(query.get("count", 1)), query.get("value", ""))
                self.answer(b"{}")
            elif url.path == "/show":
                self.feed.show(int(query.get("count", 1)))
                self.answer(b"{}")
            elif url.path == "/stats":
                feed = self.feed
                self.answer(json.dumps({"polls": feed.polls, "held": feed.held, "events": feed.shown, "path": feed.path,
                                        "headers": feed.headers}).encode())
            elif url.path in SHAPES:
                mode, value = self.feed.take_mode(self.path, dict(self.headers))
                self.poll(SHAPES[url.path], query, mode, value)
            else:
                self.answer(b'{"error":"no such feed"}', 404)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def poll(self, shape, query, mode, value):
        if mode in STATUSES:
            headers = []
            if mode == "limit" or (mode == "unavailable" and value):
                headers = [("Retry-After", value)]
            elif mode == "limitdate":
                headers = [("Retry-After", email.utils.formatdate(time.time() + float(value), usegmt=True))]
            self.answer(b'{"error":"as\\nyou wish"}', STATUSES[mode], headers)
        elif mode == "redirect":
            self.answer(b"elsewhere", 302, [("Location", value)])
        elif mode == "nocontent":
            self.answer(b"", 204)
        elif mode in ("silent", "close"):
            self.close_connection = True
            if mode == "silent":
                self.hang()
        else:
            self.misspoken(shape(self.feed, query).encode(), mode, value)

    def misspoken(self, body, mode, value):
        if mode == "notjson":
            self.answer(b"<html><body>Gateway\n\x1b[31m problem</body></html>")
        elif mode == "empty":
            self.answer(b"")
        elif mode == "cutjson":
            self.answer(body[:len(body) // 2])
        elif mode == "pretty":
            self.answer(json.dumps(json.loads(body), indent=3).encode())
        elif mode == "gzip":
            self.answer(gzip.compress(body), headers=[("Content-Encoding", "gzip")])
        elif mode == "gzipbomb":
            self.answer(gzip.compress(b" " * int(value)), headers=[("Content-Encoding", "gzip")])
        elif mode == "toobig":
            self.answer(b"[" + b" " * int(value or 70 << 20) + b"]")
        elif mode in ("cutoff", "stall"):
            self.close_connection = True
            self.answer(body[:len(body) // 2], length=len(body))
            if mode == "stall":
                self.hang()
        elif mode == "slow":
            self.answer(body[:1], length=len(body))
            for at in range(1, len(body)):
                time.sleep(float(value or 0.1))
                self.wfile.write(body[at:at + 1])
                self.wfile.flush()
        else:
            self.answer(body)

    def hang(self):
        """Until the client gives up."""
        self.connection.settimeout(600)
        try:
            self.connection.recv(1)
        except OSError:
            pass


def main():
    parser = argparse.ArgumentParser(description="an HTTP long-poll feed for tests")
    parser.add_argument("--page", type=int, default=100, help="events in an answer, at most")
    parser.add_argument("--shown", type=int, help="events that exist at first")
    parser.add_argument("--mode", default="normal")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--value", default="")
    parser.add_argument("--port", type=int, default=0, help="0: any")
    parser.add_argument("--no-stdin", action="store_true", help="do not end when stdin closes")
    parser.add_argument("file", nargs="?")
    options = parser.parse_args()

    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1
    lines = []
    if options.file:
        with open(options.file, encoding="utf-8") as file:
            lines = [line for line in file.read().split("\n") if line.strip()]
    feed = Feed(lines, options.shown, options.page)
    feed.control(options.mode, options.count, options.value)
    Handler.feed = feed
    ThreadingHTTPServer.daemon_threads = True
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if options.no_stdin:
        signal.pause()
    while not options.no_stdin and sys.stdin.buffer.read(4096):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
