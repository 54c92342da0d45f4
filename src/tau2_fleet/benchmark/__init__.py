"""τ²-bench as this project sees it: domains, tasks, environments and the official prompts."""
