// Writes the monotonic clock at its first instruction, then stays.
require('node:fs').appendFileSync(process.env.STAMP, `${process.hrtime.bigint()}\n`);
setInterval(() => {}, 1 << 30);
