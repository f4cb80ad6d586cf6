// Evaluates one configuration file and writes its value as JSON to the pipe
// that stands in for standard input: "<bytes>\n<json>". Runs in node, bun, deno.
import fs from 'node:fs';
import process from 'node:process';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { spawnSync } from 'node:child_process';

const file = process.env.MUSHER_CONFIG_FILE;
const argv = JSON.parse(process.env.MUSHER_CONFIG_ARGV);
delete process.env.MUSHER_CONFIG_FILE;
delete process.env.MUSHER_CONFIG_ARGV;
try {
  process.argv.splice(1, process.argv.length, 'musher', ...argv);
} catch {}

// Half a surrogate pair is no text outside of JavaScript.
function wellFormed(json) {
  return json.replace(/\\(?:(ud[89a-f][0-9a-f]{2})|.)/g, (escape, lone) => (lone ? '\ufffd' : escape));
}

function answer(value) {
  const body = Buffer.from(wellFormed(JSON.stringify(value)));
  const bytes = Buffer.concat([Buffer.from(body.length + '\n'), body]);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += fs.writeSync(0, bytes, at, bytes.length - at);
    } catch (error) {
      // Node makes its standard input non-blocking; the pipe is full.
      if (error.code !== 'EAGAIN') process.exit(1);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
  process.exit(0);
}

async function evaluate() {
  if (/\.m[jt]s$/.test(file)) return import(pathToFileURL(file).href);
  try {
    return createRequire(file)(file);
  } catch (error) {
    if (error?.code === 'ERR_REQUIRE_ESM' || error?.code === 'ERR_REQUIRE_ASYNC_MODULE') {
      return import(pathToFileURL(file).href);
    }
    throw error;
  }
}

function plain(key, value) {
  if (typeof value === 'bigint' || value instanceof RegExp) return String(value);
  return value;
}

// A syntax error of an ES module does not say where; `node --check` does.
function located(error) {
  const stack = String(error?.stack ?? error);
  if (error?.name !== 'SyntaxError' || stack.includes(file + ':') || !process.versions.node) {
    return stack;
  }
  const check = spawnSync(process.execPath, ['--check', file], {
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: 5000,
  });
  return String(check.stderr ?? '') + stack;
}

try {
  let value = await evaluate();
  const module = value?.[Symbol.toStringTag] === 'Module' || value?.__esModule;
  if (module && value.default !== undefined) value = value.default;
  if (typeof value === 'function') value = value();
  value = await value;
  const text = JSON.stringify(value ?? null, plain);
  answer({ value: JSON.parse(text ?? 'null') });
} catch (error) {
  answer({
    error: {
      message: String(error?.name ? error.name + ': ' + error.message : error),
      code: String(error?.code ?? ''),
      stack: located(error),
    },
  });
}
