"""Families that are hard to end. Every process has the words of the command
line, by which a test finds it, and ends by itself after a minute.

  far        a child that left parent and session, and one that cleared its
             environment too; the main process stays
  storm N    N processes, each with up to two children, half of them in
             sessions of their own; none obeys
  chain N    a child that is replaced by its child, N times, as fast as it goes
  leave      a deaf child that left parent and session; the main process stays
  crash PORT the child holds the port and the output, the main process ends
"""
import os
import signal
import socket
import sys
import time


def sleep():
    time.sleep(60)
    os._exit(0)


def deaf():
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)


def apart(then):
    """Runs `then` in a process without parent and session of this family."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            then()
        os._exit(0)
    os.wait()


def bare():
    words = [sys.executable, sys.argv[0], 'sleep'] + sys.argv[2:]
    os.execve(sys.executable, words, {})


def storm(n, index=0):
    deaf()
    if index % 2:
        os.setsid()
    for child in (2 * index + 1, 2 * index + 2):
        if child < n and os.fork() == 0:
            storm(n, child)
    if index == n - 1:
        print('complete', flush=True)
    sleep()


def chain(n):
    deaf()
    for link in range(n):
        if os.fork() != 0:
            os._exit(0)
        if link == 10:
            print('complete', flush=True)
    sleep()


def listen(port):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(('127.0.0.1', port))
    server.listen()
    return server


what, rest = sys.argv[1], sys.argv[2:]
if what == 'far':
    apart(sleep)
    apart(bare)
    print('complete', flush=True)
    sleep()
elif what == 'storm':
    storm(int(rest[0]))
elif what == 'chain':
    if os.fork() == 0:
        chain(int(rest[0]))
    deaf()
    sleep()
elif what == 'leave':
    deaf()
    apart(sleep)
    print('complete', flush=True)
    sleep()
elif what == 'crash':
    try:
        server = listen(int(rest[0]))
    except OSError as error:
        print('refused', error, flush=True)
        sys.exit(3)
    deaf()
    apart(sleep)
    print('complete', flush=True)
    time.sleep(1.2)
    sys.exit(1)
else:
    sleep()
