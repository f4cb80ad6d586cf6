// Larger than a pipe holds, with text that UTF-8 cannot carry.
module.exports = {
  name: 'large',
  script: './app.js',
  env: { BIG: 'x'.repeat(1 << 20), LONE: 'a\ud83d', PAIR: '\u{1f680}', BACKSLASH: '\\ud83d' },
};
