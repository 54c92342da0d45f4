"""Where servers run, one file each, found by its name (`hosts.kind=slurm`); see `tau2_fleet.fleet.host`."""
