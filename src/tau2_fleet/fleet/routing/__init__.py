"""Routing rules, one file each, found by their names (`server.routing=sticky`); `tau2_fleet.fleet.router` asks them."""
