"""Kinds of servers, one file each, found by their names (`server.kind=vllm`); see `tau2_fleet.fleet.server_kind`."""
