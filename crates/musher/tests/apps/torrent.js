// Prints numbered lines as fast as they are taken, a pause after every hundred.
let n = 0;
(function some() {
  for (const end = n + 100; n < end; n++) console.log(`tick ${n}`);
  setTimeout(some, 1);
})();
