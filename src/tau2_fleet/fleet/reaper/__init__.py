"""Ends every server when the run is gone; standard library only."""
