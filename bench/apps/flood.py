"""Floods stdout with MEGABYTES of numbered lines, as fast as the pipe takes them."""
import os
import sys
import time

LINE = 100  # bytes with the newline
CHUNK = 640  # lines in a write, about 64 KB
lines = int(os.environ["MEGABYTES"]) * 1_000_000 // LINE
out = sys.stdout.buffer
with open(os.environ["STAMP"], "a") as stamp:
    stamp.write(f"{time.monotonic_ns()}\n")
for first in range(0, lines, CHUNK):
    out.write(b"".join(b"%08d %s\n" % (n, b"x" * (LINE - 10)) for n in range(first, min(first + CHUNK, lines))))
out.write(b"END\n")
out.flush()
