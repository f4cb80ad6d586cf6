"""What the suites of this directory share: a home of musher's own, load, checks.

Every suite is an executable file beside this one. It runs the released binary
(MUSHER) in scratch homes, loads it with musher-load (MUSHER_LOAD, or the one
beside MUSHER), and ends with "name: N passed, N failed". Everything it starts
ends with it, by pid. Nothing is waited for without a deadline.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
APPS = HERE / "apps"
MUSHER = Path(os.environ.get("MUSHER") or ROOT / "target/debug/musher").absolute()
LOAD = Path(os.environ.get("MUSHER_LOAD") or MUSHER.with_name("musher-load")).absolute()
NODE = os.environ.get("MUSHER_TEST_NODE") or shutil.which("node")
COMMAND_SECONDS = 60
WAIT_SECONDS = 20
# Load ends at the latest after this, whatever became of the suite.
LOAD_SECONDS = 240


class Failed(Exception):
    """A condition that did not come true; the text says which."""


class Ran:
    """A command that ended: code (negative for a signal), texts, milliseconds."""

    def __init__(self, code, out, err, ms):
        self.code, self.out, self.err, self.ms = code, out, err, ms

    def __str__(self):
        return f"exit code {self.code}\n{self.out}{self.err}"


class Home:
    """One musher with a home, a working directory and a mark in /proc."""

    def __init__(self, name="home", home=None, **env):
        self.dir = Path(tempfile.mkdtemp(prefix=f"musher-{name}-"))
        self.home = Path(home) if home else self.dir / "home"
        self.cwd = self.dir / "cwd"
        self.cwd.mkdir()
        path = os.pathsep.join([str(Path(NODE).parent), os.environ.get("PATH", "")])
        self.env = {"PATH": path, "HOME": str(self.dir), "MUSHER_HOME": str(self.home),
                    "PM2_HOME": str(self.home), "TZ": "UTC", "NO_COLOR": "1",
                    "MUSHER_SUITE": str(self.dir), **env}
        self.loads = []

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.evidence(), flush=True)
        for load in self.loads:
            load.drop()
        self.popen("kill").wait(COMMAND_SECONDS)
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(self.dir, ignore_errors=True)

    def popen(self, *args, **more):
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([str(MUSHER), *args], env=self.env, cwd=self.cwd, **{**quiet, **more})

    def run(self, *args, seconds=COMMAND_SECONDS):
        """Runs a command to its end; no end in time is a failure."""
        began = time.perf_counter()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = self.popen(*args, stdout=out, stderr=err)
            try:
                code = child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise Failed(f"musher {' '.join(args)}: no end in {seconds} s") from None
            ms = (time.perf_counter() - began) * 1000
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return Ran(code, *texts, ms)

    def ok(self, *args):
        ran = self.run(*args)
        if ran.code != 0:
            raise Failed(f"musher {' '.join(args)}: {ran}")
        return ran

    def start(self, **app):
        """Starts one app from a config file of its own."""
        app.setdefault("cwd", str(self.cwd))
        path = self.cwd / f"{app['name']}.config.json"
        path.write_text(json.dumps({"apps": [app]}))
        return self.ok("start", str(path))

    def list(self, name=None):
        out = self.ok("jlist").out
        return [p for p in json.loads(out) if name in (None, p["name"])]

    def pids(self, name):
        return [p["pid"] for p in self.list(name) if p["pid"]]

    def wait_online(self, name, n):
        def online():
            found = self.list(name)
            good = len(found) == n and all(p["pm2_env"]["status"] == "online" and p["pid"] for p in found)
            return good and [p["pid"] for p in found]
        return until(online, f"{n} processes of {name} online")

    def wait_listening(self, name, n, port):
        """Waits until each of `n` processes holds a socket that listens there."""
        pids = self.wait_online(name, n)
        until(lambda: all(listens(pid, port) for pid in pids), f"{n} processes of {name} listen on {port}")
        return pids

    def daemon(self):
        return int((self.home / "pm2.pid").read_text())

    def keeper(self):
        wanted = [b"keeper", b"--home", str(self.home).encode()]
        found = [pid for pid in all_pids() if read_proc(pid, "cmdline").split(b"\0")[1:4] == wanted and is_alive(pid)]
        if len(found) != 1:
            raise Failed(f"{len(found)} keepers: {found}")
        return found[0]

    def kill_daemon(self):
        """Kills the daemon; returns the ms until a command was answered."""
        dead = self.daemon()
        began = time.perf_counter()
        os.kill(dead, signal.SIGKILL)
        # The answer is the next daemon's: this one cannot give any.
        self.ok("ping")
        ms = (time.perf_counter() - began) * 1000
        until(lambda: self.daemon() != dead, "the pid file names the next daemon")
        return ms

    def processes(self):
        """Every process that carries this home's mark."""
        mark = f"MUSHER_SUITE={self.dir}".encode()
        return [pid for pid in all_pids() if mark in read_proc(pid, "environ").split(b"\0")]

    def load(self, port, **options):
        load = Load(port, options)
        self.loads.append(load)
        return load

    def log(self, name):
        path = self.home / "logs" / name
        return path.read_text(errors="replace") if path.exists() else ""

    def said(self):
        path = self.home / "pm2.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def evidence(self):
        text = []
        for path in [self.home / "pm2.log", *sorted((self.home / "logs").glob("*"))]:
            if path.is_file():
                lines = path.read_text(errors="replace").splitlines()[-25:]
                text += [f"--- {path.name}", *lines]
        return "\n".join(text)


class Load:
    """musher-load under way; `end` gives its counts."""

    def __init__(self, port, options):
        options.setdefault("seconds", LOAD_SECONDS)
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        self.child = subprocess.Popen([str(LOAD), f"127.0.0.1:{port}", *words, "--control"],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def counts(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def answered(self, n):
        """Waits for `n` further good answers."""
        before = self.counts()["ok"]
        until(lambda: self.counts()["ok"] >= before + n, f"{n} answers")

    def asked(self, n):
        """Waits for `n` further requests, however they end."""
        before = self.counts()["requests"]
        until(lambda: self.counts()["requests"] >= before + n, f"{n} requests")

    def end(self):
        out, _ = self.child.communicate(timeout=COMMAND_SECONDS)
        return json.loads(out.splitlines()[-1])

    def drop(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


def total(results):
    """The sum of several counts; samples are joined."""
    both = {key: sum(r[key] for r in results) for key in ("requests", "ok", "failed", "reconnects", "resent")}
    both["failures"] = {}
    for result in results:
        for kind, n in result["failures"].items():
            both["failures"][kind] = both["failures"].get(kind, 0) + n
    both["samples"] = [sample for result in results for sample in result["samples"]]
    return both


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def read_proc(pid, file):
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def is_alive(pid):
    stat = read_proc(pid, "stat").rpartition(b")")[2].split()
    return bool(stat) and stat[0] not in (b"Z", b"X")


def listens(pid, port):
    """Whether a process holds a TCP socket that listens on this port (proc_net_tcp(5))."""
    inodes = set()
    for line in (read_proc(pid, "net/tcp") + read_proc(pid, "net/tcp6")).decode().splitlines():
        words = line.split()
        if len(words) > 9 and words[3] == "0A" and words[1].endswith(f":{port:04X}"):
            inodes.add(f"socket:[{words[9]}]")
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") in inodes for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def until(condition, what, seconds=WAIT_SECONDS, pause=0.01):
    """Waits for a condition to give something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(pause)


def free_port():
    """A port below those the kernel gives to clients, which nobody holds."""
    for _ in range(1000):
        free_port.next = 10_000 + (free_port.next + 1) % 20_000
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", free_port.next))
            except OSError:
                continue
            return free_port.next
    raise Failed("no free port")


free_port.next = os.getpid() * 61


def get(port, path="/", seconds=5):
    """The body of one good answer on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), seconds) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while chunk := stream.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise Failed(f"no 200 from port {port}: {data[:80]!r}")
    return body.decode()


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def distribution(values):
    return (f"median {statistics.median(values):.1f} ms, p99 {percentile(values, 0.99):.1f} ms,"
            f" worst {max(values):.1f} ms, n {len(values)}")


class Suite:
    """Counts what holds and what does not, and says so as it goes."""

    def __init__(self, name):
        self.name, self.passed, self.failed = name, 0, []
        self.began = time.monotonic()
        for program in (MUSHER, LOAD, NODE):
            if not program or not Path(program).exists():
                sys.exit(f"{name}: {program} is missing (scripts/test build makes it)")
        # A suite that is told to end still ends what it started.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def check(self, what, holds, detail=""):
        if holds:
            self.passed += 1
            print(f"   ok   {what}", flush=True)
        else:
            self.failed.append(what)
            print(f"   FAIL {what}: {detail}", flush=True)
        return holds

    def run(self, what, scenario, *args):
        """Runs one scenario; one that cannot go on counts as a failure."""
        began = time.monotonic()
        print(f"-- {what}", flush=True)
        try:
            scenario(*args)
        except (Failed, OSError, ValueError, KeyError, IndexError, subprocess.SubprocessError) as failure:
            self.check(what, False, f"{type(failure).__name__}: {failure}")
        print(f"   ({time.monotonic() - began:.1f} s)", flush=True)

    def end(self):
        for what in self.failed:
            print(f"failed: {what}")
        print(f"{self.name}: {self.passed} passed, {len(self.failed)} failed")
        print(f"({time.monotonic() - self.began:.0f} s)", flush=True)
        return 1 if self.failed else 0
