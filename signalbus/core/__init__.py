"""Small helpers that need nothing else of signalbus: near misses of names, runtime estimates, a broker's address."""
