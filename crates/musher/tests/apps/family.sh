#!/bin/sh
# Leaves a grandchild behind a double fork, in the same session.
(sleep 1000 & echo "$!" > grandchild.pid)
exec sleep 1000
