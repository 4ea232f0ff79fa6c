"""Small helpers that need nothing else of signalbus: suggestions for wrong names, runtime estimates, addresses."""
