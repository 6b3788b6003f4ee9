#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes inputs for fuzz_idefix to a directory: the captured frames, where ../shared is there, and hostile ones.

Usage: corpus_idefix.py DIRECTORY
"""
import gzip
import os
import sys

TOP = os.environ.get("top_srcdir", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
FRAMES = os.path.join(TOP, "..", "shared", "idefix", "frames.tsv")
FLAGS = ["j", "jg", "m", "mg", "", "x", "mgg", "jm"]  # as in fuzz_idefix.c: the first byte is an index


def text(value):
    """MessagePack text of up to 65535 bytes."""
    data = value if isinstance(value, bytes) else value.encode()
    if len(data) < 32:
        return bytes([0xA0 | len(data)]) + data
    return b"\xda" + len(data).to_bytes(2, "big") + data


def members(*pairs):
    """A MessagePack map; the values are packed already."""
    return bytes([0x80 | len(pairs)]) + b"".join(text(key) + value for key, value in pairs)


def answer(events, cid=text("c-1")):
    """An answer to events.get around packed events."""
    data = members(("events", b"\xdc" + len(events).to_bytes(2, "big") + b"".join(events)), ("cid", cid))
    return members(("to", text("0123456789abcdef")), ("dt", data))


def captured():
    """(name, flags, body) of each captured frame."""
    if not os.path.exists(FRAMES):
        return
    with open(FRAMES, encoding="ascii") as lines:
        for number, line in enumerate(lines):
            topic, body = line.rstrip("\n").split("\t")
            flags = topic.rsplit("/", 1)[1]
            body = bytes.fromhex(body)
            yield f"frame-{number:02}", flags, body
            if flags.endswith("g"):  # mutations get further where nothing is compressed
                yield f"frame-{number:02}-plain", flags[0], gzip.decompress(body)


def packed_values():
    """Values of every kind, and such as lie about what follows."""
    good = members(("uid", text("e-1")), ("address", text("d")), ("type", text("t")))
    kinds = [b"\xc0", b"\xc2", b"\xc3", b"\x7f", b"\xe0", b"\xcc\xff", b"\xcd\xff\xff", b"\xce\xff\xff\xff\xff",
             b"\xcf" + b"\xff" * 8, b"\xd0\x80", b"\xd1\x80\0", b"\xd2\x80\0\0\0", b"\xd3\x80" + b"\0" * 7,
             b"\xca\x3f\xc0\0\0", b"\xcb\x3f\xf8" + b"\0" * 6, b"\xcb\x7f\xf8" + b"\0" * 6, b"\xcb" + b"\0" * 7 + b"\1",
             text("a\0b\u00e9\U0001f600"), text(b"\xff\xfe"), b"\xd9\x01a", b"\xdb\0\0\0\x01a", b"\xc4\x04\0\1\2\xff",
             b"\xc5\0\1\0", b"\xc6\0\0\0\1\0", b"\xd6\xff\0\0\0\0", b"\xd7\xff" + b"\0" * 8,
             b"\xc7\x0c\xff" + b"\0" * 4 + b"\xff" * 8, b"\xdc\0\1\xc0", b"\xdd\0\0\0\1\xc0", b"\xde\0\1\xa1a\xc0",
             b"\xdf\0\0\0\1\xa1a\xc0", b"\x81\x05\xc4\1\0", b"\xd4\x05\0", b"\xd8\1" + b"\0" * 16, b"\xc7\0\xff", b"\xc1"]
    events = [members(("uid", text(f"k-{number}")), ("payload", kind)) for number, kind in enumerate(kinds)]
    yield "kinds", answer(events)
    yield "elements", answer(kinds)
    yield "bad-third", answer([good, good, members(("uid", text("e")), ("x", b"\xc1")), good, good])
    yield "uids", answer([members(("uid", uid)) for uid in
                          (text(""), text("u" * 1025), text("a\0"), text(b"\xff"), b"\xc0", b"\x05", b"\xc4\1a")])
    yield "keys", answer([b"\x82" + text("uid") + text("k") + key + b"\xc0" for key in (b"\xc0", b"\x05", b"\xc4\1a")])
    for depth in (198, 199, 200, 5000):
        yield f"deep-{depth}", answer([good, members(("uid", text("d")), ("x", b"\x91" * depth + b"\xc0")), good])
    for number, lie in enumerate((b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
                                  b"\xc9\xff\xff\xff\xff\xff", b"\xdc\xff\xff\xc0", b"\xde\xff\xff\xc0")):
        yield f"lie-{number}", answer([good, lie])
    yield "error", members(("to", text("0")), ("dt", b"\xc0"), ("re", text("1")), ("er", text("[201] Invalid token")))
    yield "wrong-types", members(("to", text("0")), ("dt", b"\x05"), ("re", b"\xc0"), ("er", b"\xa0"))
    yield "cid", answer([good], text(b"a\0\xff"))


def json_bodies():
    """JSON that is good, bad in one event, and broken."""
    def page(event, cid='"c-1"'):
        return ('{"t":"0123","d":{"cid":%s,"events":[{"uid":"a"},%s,{"uid":"b"}]}}' % (cid, event)).encode("latin-1")

    bad = ['{"uid":"e","x":NaN}', '{"uid":"e","x":"\xff"}', '{"uid":7}', '{"x":1}', "null", "[1}", '{"uid":"\\u0000"}', "",
           '{"uid":"e"} x', '{"uid":"\\ud800","address":"\\ud83d\\ude00"}', '{"uid":"e","x:b64":"AAEC","y:string:b64":"/w=="}',
           '{"uid":"e","n":[18446744073709551615,-9223372036854775808,1e400,-0.0,1.5]}', '{"\\u0075id":"e"}']
    for number, event in enumerate(bad):
        yield f"event-{number}", page(event)
    for depth in (199, 200, 5000):
        yield f"deep-{depth}", page('{"uid":"d","x":' + "[" * depth + "]" * depth + "}")
    yield "cid", page('{"uid":"e"}', '"\\u0000"')
    for number, body in enumerate(('{"t":"a","d":{"events":[', '{"t":"a"}}', '{"t":"a","d":{"x":"}', '{"t":"a","d":null,"e":"[7] Timeout"}',
                                   '{"t":"a","d":[1,2}', '{"t":5}', "[]", '{"t":"a","d":nul}', ' { "t" : "a" , "r" : "b" } ')):
        yield f"broken-{number}", body.encode()


def hostile():
    """(name, flags, body), made by hand."""
    for name, body in packed_values():
        yield "packed-" + name, "m", body
        yield "packed-gzip-" + name, "mg", gzip.compress(body, mtime=0)
    for name, body in json_bodies():
        yield "json-" + name, "j", body
    good = b'{"t":"a","d":{"ok":true}}'
    squeezed = gzip.compress(good, mtime=0)
    yield "gzip-bomb", "jg", gzip.compress(b" " * (2 << 20), mtime=0)
    yield "gzip-cut", "jg", squeezed[:-5]
    yield "gzip-behind", "jg", squeezed + b"x"
    yield "gzip-members", "jg", gzip.compress(good[:5], mtime=0) + gzip.compress(good[5:], mtime=0)
    yield "gzip-none", "mg", good
    for flags in FLAGS[4:]:
        yield "flags-" + (flags or "none"), flags, good
    yield "empty", "m", b""


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    counts = []
    for inputs in (captured(), hostile()):
        count = 0
        for name, flags, body in inputs:
            with open(os.path.join(sys.argv[1], name), "wb") as file:
                file.write(bytes([FLAGS.index(flags)]) + body)
            count += 1
        counts.append(count)
    print(f"{counts[0]} captured, {counts[1]} made by hand")


if __name__ == "__main__":
    main()
