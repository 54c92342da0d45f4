"""One HTML file that shows a whole run: its score, why reward was lost, every conversation."""
