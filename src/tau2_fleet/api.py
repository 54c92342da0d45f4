"""The names for code of one's own: agents, users, domains, kinds of servers and hosts, routing rules, trackers,
export formats.

`from tau2_fleet.api import ToolCallingAgent`. Each name is imported when it is asked for, so that a small part costs
no more than what it uses. What is not here can change from one release to the next.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tau2_fleet.agents.agent import Agent as Agent
    from tau2_fleet.agents.agent import AgentContext as AgentContext
    from tau2_fleet.agents.agent import AgentInput as AgentInput
    from tau2_fleet.agents.tool_calling import ToolCallingAgent as ToolCallingAgent
    from tau2_fleet.benchmark.package import AssistantMessage as AssistantMessage
    from tau2_fleet.benchmark.package import Message as Message
    from tau2_fleet.benchmark.package import Task as Task
    from tau2_fleet.benchmark.package import ToolCall as ToolCall
    from tau2_fleet.benchmark.package import ToolMessage as ToolMessage
    from tau2_fleet.benchmark.package import UserMessage as UserMessage
    from tau2_fleet.errors import UserError as UserError
    from tau2_fleet.export.export_format import Export as Export
    from tau2_fleet.export.export_format import ExportFormat as ExportFormat
    from tau2_fleet.export.export_format import Refused as Refused
    from tau2_fleet.fleet.far.hosts import FarHosts as FarHosts
    from tau2_fleet.fleet.far.hosts import Reached as Reached
    from tau2_fleet.fleet.far.named_hosts import NamedHosts as NamedHosts
    from tau2_fleet.fleet.host import HostLostError as HostLostError
    from tau2_fleet.fleet.host import Hosts as Hosts
    from tau2_fleet.fleet.host import Opening as Opening
    from tau2_fleet.fleet.host import Room as Room
    from tau2_fleet.fleet.host import ServerProcess as ServerProcess
    from tau2_fleet.fleet.host import Site as Site
    from tau2_fleet.fleet.host import SpecFor as SpecFor
    from tau2_fleet.fleet.host import Started as Started
    from tau2_fleet.fleet.launch_spec import LaunchSpec as LaunchSpec
    from tau2_fleet.fleet.routing_policy import ReadyReplicas as ReadyReplicas
    from tau2_fleet.fleet.routing_policy import ReplicaLoad as ReplicaLoad
    from tau2_fleet.fleet.routing_policy import RoutingPolicy as RoutingPolicy
    from tau2_fleet.fleet.routing_policy import StatelessPolicy as StatelessPolicy
    from tau2_fleet.fleet.server_kind import LaunchedKind as LaunchedKind
    from tau2_fleet.fleet.server_kind import Placement as Placement
    from tau2_fleet.fleet.server_kind import PoolSpec as PoolSpec
    from tau2_fleet.fleet.server_kind import Preparation as Preparation
    from tau2_fleet.fleet.server_kind import ServerCommand as ServerCommand
    from tau2_fleet.fleet.server_kind import ServerKind as ServerKind
    from tau2_fleet.fleet.server_kind import Starter as Starter
    from tau2_fleet.fleet.settings import HostsSettings as HostsSettings
    from tau2_fleet.fleet.settings import ServerSettings as ServerSettings
    from tau2_fleet.llm.message_views import heard as heard
    from tau2_fleet.llm.message_views import own_turn as own_turn
    from tau2_fleet.llm.message_views import tool_call as tool_call
    from tau2_fleet.llm.session import ModelSession as ModelSession
    from tau2_fleet.llm.session import RoleError as RoleError
    from tau2_fleet.llm.session import TurnCost as TurnCost
    from tau2_fleet.llm.types import ChatMessage as ChatMessage
    from tau2_fleet.llm.types import ModelError as ModelError
    from tau2_fleet.llm.types import Reply as Reply
    from tau2_fleet.llm.types import ToolSet as ToolSet
    from tau2_fleet.record.atomic import replaced as replaced
    from tau2_fleet.tracking.sink import RunStart as RunStart
    from tau2_fleet.tracking.sink import SinkStarted as SinkStarted
    from tau2_fleet.tracking.sink import TrackerSink as TrackerSink
    from tau2_fleet.users.simulated_user import SimulatedUser as SimulatedUser
    from tau2_fleet.users.user import User as User
    from tau2_fleet.users.user import UserContext as UserContext
    from tau2_fleet.users.user import UserInput as UserInput

_HOMES = {
    "agents.agent": ("Agent", "AgentContext", "AgentInput"),
    "agents.tool_calling": ("ToolCallingAgent",),
    "benchmark.package": ("AssistantMessage", "Message", "Task", "ToolCall", "ToolMessage", "UserMessage"),
    "errors": ("UserError",),
    "export.export_format": ("Export", "ExportFormat", "Refused"),
    "fleet.far.hosts": ("FarHosts", "Reached"),
    "fleet.far.named_hosts": ("NamedHosts",),
    "fleet.host": ("HostLostError", "Hosts", "Opening", "Room", "ServerProcess", "Site", "SpecFor", "Started"),
    "fleet.launch_spec": ("LaunchSpec",),
    "fleet.routing_policy": ("ReadyReplicas", "ReplicaLoad", "RoutingPolicy", "StatelessPolicy"),
    "fleet.server_kind": (
        "LaunchedKind",
        "Placement",
        "PoolSpec",
        "Preparation",
        "ServerCommand",
        "ServerKind",
        "Starter",
    ),
    "fleet.settings": ("HostsSettings", "ServerSettings"),
    "llm.message_views": ("heard", "own_turn", "tool_call"),
    "llm.session": ("ModelSession", "RoleError", "TurnCost"),
    "llm.types": ("ChatMessage", "ModelError", "Reply", "ToolSet"),
    "record.atomic": ("replaced",),
    "tracking.sink": ("RunStart", "SinkStarted", "TrackerSink"),
    "users.simulated_user": ("SimulatedUser",),
    "users.user": ("User", "UserContext", "UserInput"),
}
"""Module to names: the same as above, for run time."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"tau2_fleet.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
