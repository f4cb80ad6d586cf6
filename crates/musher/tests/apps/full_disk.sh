#!/bin/sh
# Usage: full_disk.sh <directory> <musher>
# Saves onto a full file system and prints what is left on it.
set -u
mount -t tmpfs -o size=64k tmpfs "$1" || exit 99
printf '[{"name":"old"}]' > "$1/dump.pm2"
cat /dev/zero > "$1/fill" 2> /dev/null
"$2" save
code=$?
ls "$1"
cat "$1/dump.pm2"
exit "$code"
