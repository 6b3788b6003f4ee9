#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A receiver of events for tests: what an http stage POSTs to.

    collector.py FILE [PORT]

Prints its port on one line, and ends when its stdin is closed. Every POST to any path but /control that is answered
with a 2xx is appended to FILE: its body, one JSON line. It is written before the answer is sent, so whatever was
answered stands in the file.

    POST /control  {"status": 503, "reason": "...", "retry_after": "7", "headers": {...}, "body": "...", "count": 3,
                    "mode": "answer" | "hang" | "close" | "cut"}
        How POSTs are answered from now on; after `count` of them (if given) with 200 again. {} is 200 for ever.
        hang: no answer until the next control; close: the connection ends without one; cut: half of one.
    GET /control   {"posts": all POSTs, "recorded": lines written, "connections": connections that POSTed,
                    "last": {"path": ..., "headers": {...}, "body": ...}}
"""
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CALM = {"status": 200, "mode": "answer"}


class State:
    def __init__(self, path):
        self.changed = threading.Condition()
        self.file = open(path, "ab", buffering=0)
        self.behaviour = dict(CALM)
        self.turn = 0  # counts the controls
        self.posts = self.recorded = self.connections = 0
        self.last = None

    def next_behaviour(self):
        """How this POST is answered; the caller holds the lock."""
        now = self.behaviour
        if "count" in now:
            now["count"] -= 1
            if now["count"] <= 0:
                self.behaviour = dict(CALM)
        return now

    def record(self, body):
        self.file.write(body.rstrip(b"\r\n") + b"\n")
        self.recorded += 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    has_posted = False

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=None, reason=None, claimed_bytes=None):
        self.send_response(status, reason)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(claimed_bytes or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        state = self.server.state
        if self.path != "/control":
            self.answer(404)
            return
        with state.changed:
            found = {"posts": state.posts, "recorded": state.recorded, "connections": state.connections,
                     "last": state.last}
        self.answer(200, json.dumps(found).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/control":
            self.control(body)
            return
        state = self.server.state
        with state.changed:
            state.posts += 1
            if not self.has_posted:
                self.has_posted = True
                state.connections += 1
            state.last = {"path": self.path, "headers": dict(self.headers.items()), "body": body.decode()}
            behaviour = state.next_behaviour()
            turn = state.turn
            mode = behaviour.get("mode", "answer")
            status = behaviour.get("status", 200)
            if mode == "hang":
                state.changed.wait_for(lambda: state.turn != turn)
            if mode in ("hang", "close"):
                self.close_connection = True
                return
            if 200 <= status < 300 and mode == "answer":
                try:
                    json.loads(body)
                except ValueError:
                    status, behaviour = 400, {"body": "the body is not JSON"}
                else:
                    state.record(body)
        headers = dict(behaviour.get("headers", {}))
        if "retry_after" in behaviour:
            headers["Retry-After"] = str(behaviour["retry_after"])
        text = behaviour.get("body", "").encode()
        if mode == "cut":
            self.answer(status, b"half", headers, behaviour.get("reason"), claimed_bytes=100)
            self.close_connection = True
        else:
            self.answer(status, text, headers, behaviour.get("reason"))

    def control(self, body):
        state = self.server.state
        with state.changed:
            state.behaviour = json.loads(body)
            state.turn += 1
            state.changed.notify_all()
        self.answer(200)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # a worker that was killed leaves a broken connection


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: collector.py FILE [PORT]")
    server = Server(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) == 3 else 0), Handler)
    server.state = State(sys.argv[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)  # threads may hang on purpose


main()
