// What the kernel says about processes: the tests believe nothing else.
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

/// Longest wait for a condition, ms.
export const PATIENCE = 10_000;

/// Returns the first truthy value of `look`, or fails after PATIENCE.
export async function until(what, look, patience = PATIENCE) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await look();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${patience} ms: ${what}`);
    await pause(10);
  }
}

/// Returns whether a process exists and is no zombie.
export function isAlive(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
  } catch {
    return false;
  }
}

/// Returns the parent's pid.
export function parent(pid) {
  const stat = read(`/proc/${pid}/stat`);
  return Number(stat.slice(stat.lastIndexOf(')') + 4).split(' ')[0]);
}

/// Waits until none of these processes is left.
export function allGone(pids) {
  return until(`processes ${pids} are gone`, () => !pids.some(isAlive));
}

/// Returns a variable of a process's environment, or undefined.
export function variable(pid, name) {
  const entry = read(`/proc/${pid}/environ`)
    .split('\0')
    .find((pair) => pair.startsWith(`${name}=`));
  return entry?.slice(name.length + 1);
}

/// Returns a process's argument list.
export function commandLine(pid) {
  return read(`/proc/${pid}/cmdline`).split('\0').slice(0, -1);
}

/// Returns the living processes that name `home` in arguments or environment.
export function processesOf(home) {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && isAlive(pid))
    .filter((pid) => read(`/proc/${pid}/cmdline`).includes(home)
      || read(`/proc/${pid}/environ`).includes(home));
}

function read(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
