"""Trackers, one file each, found by their names (`wandb.sink=wandb`); the tracker process makes one of them."""
