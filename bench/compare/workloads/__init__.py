"""One kind of workload a file: `run` drives a turn from the command's process, `work` is what a client process does."""
