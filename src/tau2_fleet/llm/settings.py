"""What `conf/llm/*.yaml` says of one model; `user_llm/`, `judge/` and `experts/` reuse it.

Plain dataclasses: `tau2_fleet.config` makes the Hydra schema of them, `tau2_fleet.llm` builds clients from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Optional


class Provider(StrEnum):
    """Who answers, and by which path a request gets there."""

    vllm = "vllm"
    """A pool of vLLM servers: the lean path, routed by the fleet."""
    simulated = "simulated"
    """A pool of this project's own simulated servers; same path, no GPU, no key, no network."""
    openai = "openai"
    """OpenAI, or any OpenAI-compatible URL given as `base_url`: the lean path."""
    anthropic = "anthropic"
    """Claude, through the `anthropic` client."""
    litellm = "litellm"
    """Anything else that litellm can reach (Together, Nebius, OpenRouter, Azure, ...)."""

    @property
    def is_pool(self) -> bool:
        """Whether the servers are the fleet's, so that a request needs its router."""
        return self in (Provider.vllm, Provider.simulated)


@dataclass
class PriceSettings:
    """USD per million tokens."""

    input: float = 0.0
    output: float = 0.0
    cached_input: Optional[float] = None
    """null: cached input costs as much as other input."""


@dataclass
class PoolSettings:
    """The servers behind a model of provider `vllm` or `simulated`; the same name is the same pool."""

    name: str = "agent"
    model: Optional[str] = None
    """Checkpoint path or hub id to serve; null: the model's own `model`."""
    num: int = 1
    """Replicas."""
    tensor_parallel_size: int = 1
    tool_call_parser: Optional[str] = None
    extra_args: str = ""
    """Any `vllm serve` flags, as one string."""
    endpoints: list[str] = field(default_factory=list)
    """URLs of servers that run already (then nothing is launched for this pool)."""
    api_key_env: Optional[str] = None
    api_key_file: Optional[str] = None


@dataclass
class LifetimeSettings:
    """How long a remote model can be asked, as its provider announced it."""

    model: Optional[str] = None
    """The model that this is about, as `model` names it; for another one it says nothing."""
    ends: Optional[str] = None
    """The day of the shutdown (2026-12-11), or the words `none announced`."""
    successor: Optional[str] = None
    """What the provider names in its place: a file of `conf/llm/`."""
    looked: Optional[str] = None
    """The day on which somebody looked it up."""
    source: Optional[str] = None
    """Where."""


@dataclass
class ModelSettings:
    """One model: where it is, what is sent with each request, what it costs."""

    provider: Provider = Provider.openai
    model: Optional[str] = None
    """The name sent to the provider."""
    base_url: Optional[str] = None
    api_key_env: Optional[str] = None
    """Environment variable that holds the key; null: the provider's usual one."""
    temperature: Optional[float] = 1.0
    """null: not sent (reasoning models refuse it)."""
    top_p: Optional[float] = None
    max_output_tokens: Optional[int] = 16384
    max_context_tokens: Optional[int] = None
    """Tokens of history, tools and answer together; null: what the server itself allows."""
    reasoning_effort: Optional[str] = None
    sends_seed: bool = True
    """Whether the provider takes a `seed`."""
    max_tokens_key: str = "max_tokens"
    """`max_tokens` or `max_completion_tokens`, whichever the provider asks for."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Further keys of the request body."""
    price: Optional[PriceSettings] = None
    """null: the price table of `data/prices/`; a fleet of one's own costs nothing."""
    pool: Optional[PoolSettings] = None
    lifetime: Optional[LifetimeSettings] = None
    """null: nothing is known, or the servers are one's own."""
