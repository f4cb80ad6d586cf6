// Ends at once with exit code 1.
console.error('about to fail');
process.exit(1);
