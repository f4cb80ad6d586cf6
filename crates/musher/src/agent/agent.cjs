'use strict';
// musher's agent: a small script that Node loads before the app
// (NODE_OPTIONS=--require). It gives the daemon figures of the process, runs
// the garbage collector when asked, and lets a worker that is replaced finish
// what it has: idle keep-alive connections go to another worker unread bytes
// and all, the others end after their last answer.
//
// It talks in internal messages of Node's IPC channel ({cmd: 'NODE_MUSHER'}),
// which the app never sees, and never keeps the process alive by itself. It
// listens on nothing, opens nothing, and takes no part in worker threads and
// child processes. Whatever it does not find in this Node it goes without;
// nothing of it may throw into the app. Written for Node 18 and later, in the
// words of far older ones, because a syntax error would end the app.

const AGENT_VERSION = 1;

// From one look at the figures to the next, milliseconds.
const FIRST_LOOK = 1000;
const LOOK_EVERY = 5000;
// Looks whose requests make the requests of a minute.
const LOOKS_PER_MINUTE = 12;
// Figures that changed by less than this part are not sent again...
const NOTABLE = 0.05;
// ...unless so many looks have passed.
const SEND_ANYWAY = 12;
// Resolution of the event loop's delay, milliseconds.
const LAG_RESOLUTION = 50;
// Latencies of one look; where there are more requests, every n-th is timed.
const MAX_TIMED = 512;
// Requests of one look that are counted; with more, the next minute rests.
const MAX_COUNTED = 4096;
// From one sweep of a drain to the next, milliseconds, and how many times its
// own cost a sweep has to wait.
const SWEEP_EVERY = 25;
const SWEEP_SHARE = 8;
// Connections under way to the daemon at once: each is silent for the round
// trips before its own.
const BATCH = 16;
// A close frame of RFC 6455 with code 1012, service restart, unmasked.
const CLOSE_FRAME = [0x88, 0x02, 0x03, 0xf4];
// How long the other end of a WebSocket has to answer it, milliseconds.
const CLOSE_PATIENCE = 2000;
// Patience of a close frame with a socket that does not take bytes.
const WRITE_TRIES = 50;
const WRITE_AGAIN = 20;

function quietly(what) {
  return function () {
    try {
      return what.apply(this, arguments);
    } catch (_) {
      return undefined;
    }
  };
}

// Takes itself out of NODE_OPTIONS, so that the app and its children see what
// the user wrote; returns whether it was there.
function leaveEnvironment() {
  const options = process.env.NODE_OPTIONS;
  const found = /^--require (?:"(?:[^"\\]|\\[^])*"|[^ "]+)( |$)/.exec(options || '');
  if (!found || !/agent-[0-9a-f]+\.cjs"? ?$/.test(found[0])) return false;
  if (found[1] === ' ') process.env.NODE_OPTIONS = options.slice(found[0].length);
  else delete process.env.NODE_OPTIONS;
  return true;
}

function begin() {
  if (typeof process.send !== 'function' || !process.connected) return;
  if (!require('worker_threads').isMainThread) return;
  const send = process.send;
  const tell = quietly(function (message, handle, then) {
    if (!process.connected) return;
    message = Object.assign({ cmd: 'NODE_MUSHER' }, message);
    // With a callback a failure is never an `error` event of the process.
    send.call(process, message, handle, undefined, then || function () {});
  });
  const drain = drainer(tell);
  const collect = collector();
  process.on('internalMessage', quietly(function (message) {
    if (!message) return;
    if (message.cmd === 'NODE_HANDLE_ACK') return drain.wake();
    if (message.cmd !== 'NODE_MUSHER') return;
    if (message.act === 'drain') drain.begin(message);
    if (message.act === 'gc') tell(Object.assign({ act: 'gc', id: message.id }, collect()));
  }));
  later(FIRST_LOOK, function () { watch(tell); });
  tell({ act: 'up', node: process.versions.node, agent: AGENT_VERSION });
}

// A timer that never keeps the process alive and never throws.
function later(ms, what) {
  setTimeout(quietly(what), ms).unref();
}

function collector() {
  let gc;
  return function () {
    if (!gc) {
      gc = global.gc;
      if (typeof gc !== 'function') {
        const v8 = require('v8');
        v8.setFlagsFromString('--expose-gc');
        gc = require('vm').runInNewContext('gc');
        v8.setFlagsFromString('--no-expose-gc');
      }
    }
    const before = process.memoryUsage();
    gc();
    const after = process.memoryUsage();
    return { heap: [before.heapUsed, after.heapUsed], rss: [before.rss, after.rss] };
  };
}

// Figures ------------------------------------------------------------------

function watch(tell) {
  const lag = quietly(delayOfLoop)();
  const requests = quietly(countRequests)();
  const collections = quietly(countCollections)();
  let last;
  let n_unsent = 0;
  const look = quietly(function () {
    const memory = process.memoryUsage();
    const figures = { heap: [memory.heapUsed, memory.heapTotal] };
    if (typeof process._getActiveHandles === 'function') {
      figures.active = [process._getActiveHandles().length, process._getActiveRequests().length];
    }
    if (lag) figures.loop = lag();
    if (collections) figures.gc = collections();
    const http = requests && requests();
    if (http) figures.http = http;
    n_unsent += 1;
    if (last && n_unsent < SEND_ANYWAY && !differ(last, figures)) return;
    n_unsent = 0;
    last = figures;
    tell({ act: 'stats', figures: figures });
  });
  look();
  setInterval(look, LOOK_EVERY).unref();
}

// Less than this is noise, by kind of figure.
const FLOORS = { heap: 256 * 1024, loop: 1, gc: 0.5, http: 1, active: 1 };

function differ(before, after) {
  return Object.keys(after).some(function (kind) {
    if (!before[kind]) return true;
    return after[kind].some(function (value, at) {
      const was = before[kind][at];
      return Math.abs(value - was) >= Math.max(FLOORS[kind], NOTABLE * Math.abs(was));
    });
  });
}

function delayOfLoop() {
  const delay = require('perf_hooks').monitorEventLoopDelay({ resolution: LAG_RESOLUTION });
  delay.enable();
  return function () {
    const values = [50, 95].map(function (percent) {
      return rounded(Math.max(0, delay.percentile(percent) / 1e6 - LAG_RESOLUTION));
    });
    delay.reset();
    return values;
  };
}

// Part of the time that went into collecting garbage, percent.
function countCollections() {
  const hooks = require('perf_hooks');
  let spent = 0;
  let since = hooks.performance.now();
  new hooks.PerformanceObserver(quietly(function (list) {
    list.getEntries().forEach(function (entry) { spent += entry.duration; });
  })).observe({ entryTypes: ['gc'] });
  return function () {
    const now = hooks.performance.now();
    const percent = rounded(100 * spent / (now - since));
    spent = 0;
    since = now;
    return [percent];
  };
}

// Requests per minute, median and 95th percentile of their latency in ms.
// Beginning and ceasing to listen makes V8 compile the hot path again, a few
// percent if it were done at each look: where there are many requests, a few
// thousand stand for those of a minute.
function countRequests() {
  const channels = require('diagnostics_channel');
  const clock = require('perf_hooks').performance;
  const rates = [];
  const started = new WeakMap();
  let timed = [];
  let latencies;
  let n_started = 0;
  let n_finished = 0;
  let stride = 1;
  let since;
  let counted;
  let figures;
  let n_resting = 0;

  function onStart(event) {
    n_started += 1;
    if (n_started % stride === 0 && n_started < stride * MAX_TIMED) {
      started.set(event.request, clock.now());
    }
  }
  function onFinish(event) {
    n_finished += 1;
    const at = started.get(event.request);
    if (at !== undefined) timed.push(clock.now() - at);
    // Not from within the channel that is told.
    if (n_finished === MAX_COUNTED) setImmediate(quietly(stop));
  }
  function listen() {
    since = clock.now();
    counted = 0;
    channels.subscribe('http.server.request.start', onStart);
    channels.subscribe('http.server.response.finish', onFinish);
  }
  function stop() {
    if (counted > 0) return;
    counted = Math.max(1, clock.now() - since);
    channels.unsubscribe('http.server.request.start', onStart);
    channels.unsubscribe('http.server.response.finish', onFinish);
  }

  listen();
  return function () {
    if (n_resting > 0) {
      n_resting -= 1;
      if (n_resting === 0) listen();
      return figures;
    }
    const isBusy = n_finished >= MAX_COUNTED;
    if (isBusy) stop();
    else counted = Math.max(1, clock.now() - since);
    if (isBusy) rates.length = 0;
    if (rates.length > 0 || n_finished > 0) rates.push(n_finished * 1000 / counted);
    if (rates.length > LOOKS_PER_MINUTE) rates.shift();
    if (timed.length > 0) {
      timed.sort(function (a, b) { return a - b; });
      latencies = [0.5, 0.95].map(function (part) {
        return rounded(timed[Math.floor(timed.length * part)]);
      });
    }
    stride = Math.max(1, Math.ceil(n_started / MAX_TIMED));
    n_started = 0;
    n_finished = 0;
    timed = [];
    since = clock.now();
    counted = 0;
    if (isBusy) n_resting = LOOKS_PER_MINUTE;
    if (!latencies) return undefined;
    const sum = rates.reduce(function (a, b) { return a + b; }, 0);
    figures = [Math.round(60 * sum / rates.length), latencies[0], latencies[1]];
    return figures;
  };
}

function rounded(value) {
  return Math.round(value * 100) / 100;
}

// Drain --------------------------------------------------------------------

function drainer(tell) {
  const servers = listeningServers(function (server) {
    // One that begins to listen while the worker finishes.
    if (state) setImmediate(quietly(stopListening), server);
  });
  let state;

  function begin(words) {
    if (state) return;
    state = {
      until: Date.now() + words.limit,
      places: new Set(words.places || []),
      websockets: words.websockets,
      over: words.over || 0,
      seen: new WeakSet(),
      moving: new WeakSet(),
      closing: new WeakSet(),
      n_seen: 0,
      n_moved: 0,
      n_closed: 0,
      isOver: false,
      isAwake: false,
      quietUntil: 0,
    };
    // Without listeners and connections the app would end before it is asked to.
    quietly(function () { process.channel.ref(); })();
    servers.each(stopListening);
    quietly(hookRequests)();
    sweepAndAgain();
  }

  // Closes the listening socket and leaves the server as it is: the app closes
  // it when it is told to end, and its callback comes as ever.
  function stopListening(server) {
    const handle = server._handle;
    if (!handle || typeof handle.close !== 'function' || state.seen.has(handle)) return;
    state.seen.add(handle);
    const name = {};
    if (typeof handle.getsockname === 'function' && handle.getsockname(name) === 0) {
      handle.getsockname = function (out) { Object.assign(out, name); return 0; };
    }
    handle.close();
    handle.close = function (then) {
      if (typeof then === 'function') setImmediate(then);
    };
  }

  function hookRequests() {
    const channels = require('diagnostics_channel');
    channels.subscribe('http.server.request.start', quietly(function (event) {
      if (!canMove(event.socket)) event.response.shouldKeepAlive = false;
    }));
    channels.subscribe('http.server.response.finish', wake);
  }

  function wake() {
    if (!state || state.isOver || state.isAwake || Date.now() < state.quietUntil) return;
    state.isAwake = true;
    setImmediate(quietly(function () {
      state.isAwake = false;
      sweep();
    }));
  }

  function sweepAndAgain() {
    if (state.isOver) return;
    quietly(sweep)();
    later(Math.max(SWEEP_EVERY, state.quietUntil - Date.now()), sweepAndAgain);
  }

  function sweep() {
    if (state.isOver) return;
    const began = Date.now();
    const left = connections();
    const idle = idleOf(left);
    // GOAWAY: streams under way are finished, others go to another connection.
    servers.sessions.forEach(quietly(function (session) {
      if (!session.closed) session.close();
    }));
    const toMove = [];
    const toClose = [];
    left.forEach(quietly(function (raw) {
      if (!state.seen.has(raw)) {
        state.seen.add(raw);
        state.n_seen += 1;
        endAfterAnswer(raw);
      }
      if (state.moving.has(raw) || state.closing.has(raw)) return;
      const socket = servers.secure(raw);
      if (socket.parser) {
        if (idle.has(raw) && canMove(raw)) toMove.push(raw);
      } else if (isUpgraded(raw, socket) && state.websockets === 'close') {
        state.closing.add(raw);
        toClose.push(socket);
      }
    }));
    if (!process._handleQueue) toMove.slice(0, BATCH).forEach(quietly(move));
    spread(toClose);
    state.quietUntil = began + SWEEP_SHARE * (Date.now() - began);
    const isEmpty = left.length === 0 && !process._handleQueue;
    if (isEmpty || began >= state.until || !process.connected) finish(left.length);
  }

  function finish(n_left) {
    state.isOver = true;
    const n_gone = Math.max(0, state.n_seen - state.n_moved - state.n_closed - n_left);
    tell({
      act: 'drained', moved: state.n_moved, finished: n_gone, closed: state.n_closed, left: n_left,
    });
  }

  // An answer that has begun keeps its header; the next one says it.
  function endAfterAnswer(raw) {
    const response = servers.secure(raw)._httpMessage;
    if (response && !response.headersSent && !canMove(raw)) response.shouldKeepAlive = false;
  }

  function canMove(socket) {
    if (state.isOver || !process.connected || socket.encrypted) return false;
    const place = socket._server && servers.place(socket._server);
    return place !== undefined && state.places.has(place);
  }

  function move(socket) {
    const handle = socket._handle;
    if (!handle || !(handle.fd >= 0) || socket.destroyed || socket._httpMessage) return;
    if (socket.writableLength > 0 || socket.readableLength > 0 || handle.writeQueueSize > 0) return;
    state.moving.add(socket);
    handle.reading = false;
    handle.readStop();
    socket.setTimeout(0);
    const place = servers.place(socket._server);
    // Node would keep a list of sent sockets and ask the daemon about them.
    socket.server = null;
    state.n_moved += 1;
    // Node takes the handle out when it is sent; the rest of the socket goes
    // the way of a closed one, so that the server counts it out.
    tell({ act: 'handover', key: place }, socket, function () { socket.destroy(); });
  }

  // Each at its time, so that clients do not come back all at once.
  function spread(sockets) {
    sockets.forEach(function (socket, at) {
      later(state.over * at / sockets.length, function () { closeWebSocket(socket, 0); });
    });
  }

  function closeWebSocket(socket, n_tries) {
    if (socket.destroyed || !socket.writable) return;
    // Between two writes of the app's own library, never into one.
    if (socket.writableLength > 0 && n_tries < WRITE_TRIES) {
      return later(WRITE_AGAIN, function () { closeWebSocket(socket, n_tries + 1); });
    }
    state.n_closed += 1;
    socket.write(Buffer.from(CLOSE_FRAME));
    later(CLOSE_PATIENCE, function () {
      socket.end();
      later(CLOSE_PATIENCE, function () { socket.destroy(); });
    });
  }

  return { begin: begin, wake: wake };
}

// Knows the servers of the process; `onListening` hears of each that begins.
function listeningServers(onListening) {
  const net = require('net');
  const places = new WeakMap();
  const overTls = new WeakMap();
  const sessions = new Set();
  let known = [];

  // Node keeps this name so that others may wrap it; there is no hook that
  // tells of a server in every release and mode.
  const listen = net.Server.prototype._listen2;
  const note = quietly(function (server, address, port, kind) {
    if (!places.has(server)) {
      known = known.filter(function (ref) { return ref.deref() !== undefined; });
      known.push(new WeakRef(server));
      if (typeof server.addContext === 'function') {
        server.on('secureConnection', quietly(function (socket) {
          if (socket._parent) overTls.set(socket._parent, socket);
        }));
      }
      // Only servers of HTTP/2 have settings.
      if (typeof server.updateSettings === 'function') {
        server.on('session', quietly(function (session) {
          sessions.add(session);
          session.once('close', function () { sessions.delete(session); });
        }));
      }
    }
    places.set(server, { address: address, port: port, kind: kind });
    onListening(server);
  });
  if (typeof listen === 'function' && typeof WeakRef === 'function') {
    net.Server.prototype._listen2 = function (address, port, kind) {
      // Only what the daemon gave can be given back to it.
      note(this, address, this._handle ? port : undefined, kind);
      return listen.apply(this, arguments);
    };
  }

  return {
    sessions: sessions,
    each: function (what) {
      known.forEach(quietly(function (ref) {
        const server = ref.deref();
        if (server) what(server);
      }));
    },
    // `address:port:kind`, as the daemon names it; undefined for one of its own.
    place: function (server) {
      const place = places.get(server);
      if (!place || place.port === undefined) return undefined;
      const bound = place.port === 0 ? server.address() : null;
      return place.address + ':' + (bound ? bound.port : place.port) + ':' + place.kind;
    },
    // The TLS socket over a connection, or the connection itself.
    secure: function (raw) {
      return overTls.get(raw) || raw;
    },
  };
}

// Every connection that a server of this process accepted.
function connections() {
  return process._getActiveHandles().filter(function (handle) {
    return handle && handle._server && handle._handle && !handle.destroyed;
  });
}

// Of these, the ones on which no byte of a further request was read.
function idleOf(sockets) {
  const idle = new Set();
  const asked = new Set();
  sockets.forEach(function (socket) {
    const server = socket._server;
    if (socket.parser && socket.bytesRead === 0) idle.add(socket);
    if (asked.has(server)) return;
    asked.add(server);
    const list = propertyNamed(server, 'http.server.connections');
    if (!list) return;
    list.idle().forEach(function (parser) {
      if (parser.socket) idle.add(parser.socket);
    });
  });
  return idle;
}

function isUpgraded(raw, socket) {
  const isHttp = propertyNamed(raw._server, 'http.server.connections') !== undefined;
  const isTls = typeof raw._server.addContext === 'function';
  return isHttp && (!isTls || socket !== raw);
}

function propertyNamed(object, name) {
  const symbol = Object.getOwnPropertySymbols(object).find(function (one) {
    return one.description === name;
  });
  return symbol && object[symbol];
}

if (quietly(leaveEnvironment)()) quietly(begin)();
quietly(function () { delete require.cache[__filename]; })();
