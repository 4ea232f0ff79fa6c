"""What a process of a worker records beside its deliveries: outcomes over time, long runs, and the worker itself."""
