#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A token that the daemon reads from its environment is not handed on to what the stages run, and is sent where it belongs."""
import json

from harness import Helper, Instance, check, equal, feed_source, finish, python_stage

TOKEN = "token-of-the-test"
stage, calls = python_stage("look", "    import os; witness('seen', event['uid'], 'TEST_TOKEN' in os.environ, 'TEST_OTHER' in os.environ)")


def main():
    feed = Helper("feed_server.py")
    feed.ask("/add", json.dumps({"name": "one"}))
    instance = Instance()
    instance.configure(feed_source("feed", feed, {"name": "look", "exec": [stage]}, uid="/id", token_env="TEST_TOKEN"))
    instance.start(environment={"TEST_TOKEN": TOKEN, "TEST_OTHER": "1"})
    instance.wait_empty(1)
    seen = [call for call in calls() if call[0] == "seen"]
    equal([call[2:] for call in seen], [[False, True]], "whether a stage sees the token's variable, and another")
    check("Bearer " + TOKEN in feed.ask("/stats")["headers"].values(), "the feed gets the token")
    instance.stop()
    check(TOKEN not in instance.log_text(), "the token is not in the log")
    finish()


main()
