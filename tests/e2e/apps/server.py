"""Python's own HTTP server on the socket it is given as descriptor 3.

A server of threads, each answering one connection with keep-alive. Told to
leave, it accepts no more, and each connection ends with its next answer.
"""

import http.server
import os
import signal
import socket
import socketserver
import threading

is_leaving = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"ok {os.getpid()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if is_leaving.is_set():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingTCPServer):
    # Joined at the end: what was accepted is answered.
    daemon_threads = False


def leave(*_):
    is_leaving.set()
    threading.Thread(target=server.shutdown).start()


server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
signal.signal(signal.SIGINT, leave)
server.serve_forever(poll_interval=0.05)
server.server_close()
