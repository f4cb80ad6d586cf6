"""A server on descriptor 3, and on 4 if there is one; it finishes what it
accepted when it is told to end. Says what it was given."""

import json
import os
import select
import signal
import socket

ending = False


def end(*_):
    global ending
    ending = True


signal.signal(signal.SIGTERM, end)
n_sockets = int(os.environ["LISTEN_FDS"])
names = os.environ["LISTEN_FDNAMES"].split(":")
mine = os.environ["LISTEN_PID"] == str(os.getpid())
waits = [os.get_blocking(3 + n) for n in range(n_sockets)]
listeners = [socket.socket(fileno=3 + n) for n in range(n_sockets)]
print(json.dumps({"event": "up", "pid": os.getpid(), "names": names, "mine": mine, "waits": waits,
                  "channel": os.environ["NODE_CHANNEL_FD"]}), flush=True)
# The flag is the socket's: every run of this program has it so.
for listener in listeners:
    listener.setblocking(False)


def answer(connection):
    connection.settimeout(5)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = connection.recv(4096)
        if not more:
            return
        head += more
    body = str(os.getpid()).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


while not ending:
    for listener in select.select(listeners, [], [], 0.05)[0]:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            # Another run was faster.
            continue
        with connection:
            answer(connection)
