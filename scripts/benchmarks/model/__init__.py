"""What the programming model costs a worker: finding a consumer, running it, running a view. CPU time, not speed."""
