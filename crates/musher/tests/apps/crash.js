// Ends at once with the code of its first argument.
console.error('about to fail');
process.exit(Number(process.argv[2] || 1));
