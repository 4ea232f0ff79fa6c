"""Record outcomes over time, long runs and the worker itself, beside the deliveries of a worker's process."""
