"""Our own OpenAI-compatible server processes: `python -m tau2_fleet.simserver`, started by the supervisor.

They play the gold actions of each task for the agent and the scripted customer for the user, over
real HTTP and in vLLM's manner. Stateless: what comes next follows from a request's session id and
messages alone, so a crash, a retry or another replica changes nothing. Everything here that runs in
the server process imports little, because a run starts several of them.
"""
