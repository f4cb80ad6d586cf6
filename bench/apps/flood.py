"""Floods stdout with MEGABYTES of numbered lines, as fast as the pipe takes them.

Everything is made before the clock starts: the writer must not be the limit.
"""
import os
import time

LINE = 100  # bytes with the newline
CHUNK = 640  # lines in a write, about 64 KB
lines = int(os.environ["MEGABYTES"]) * 1_000_000 // LINE
filler = b"x" * (LINE - 10)
chunks = [
    b"".join(b"%08d %s\n" % (n, filler) for n in range(first, min(first + CHUNK, lines)))
    for first in range(0, lines, CHUNK)
] + [b"END\n"]
with open(os.environ["STAMP"], "a") as stamp:
    stamp.write(f"{time.monotonic_ns()}\n")
for chunk in chunks:
    view = memoryview(chunk)
    while view:
        view = view[os.write(1, view):]
