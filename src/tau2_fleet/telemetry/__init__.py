"""What a run tells about itself while it goes on: events, log lines, traces, samples, W&B."""
