"""Whether one model is better than another: runs side by side, the gate, and the plan of the next comparison."""
