"""What `conf/llm/*.yaml` says of one model; `user_llm/`, `judge/` and `experts/` reuse it.

Plain dataclasses: `tau2_fleet.config` makes the Hydra schema of them, `tau2_fleet.llm` builds clients from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Optional

from tau2_fleet.key import COUNT, FROM_ZERO, Range, Resume, key

_FREE = Resume.may_differ


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


PAID = tuple(provider for provider in Provider if not provider.is_pool)
"""Those that are not servers of a run."""


class Api(StrEnum):
    """Which of OpenAI's protocols a model of provider `openai` is asked by."""

    chat = "chat"
    """Chat completions: the lean path, and what every other server speaks."""
    responses = "responses"
    """The Responses API, through OpenAI's own client; nothing is stored there."""


class ThinkingHistory(StrEnum):
    """How much of what a model thought goes back to it with its later requests."""

    none = "none"
    """Nothing."""
    turn = "turn"
    """What it thought since the last user message, while it calls tools."""
    all = "all"
    """Everything."""


@dataclass
class PriceSettings:
    """USD per million tokens."""

    input: float = key(0.0, help="of input", range=FROM_ZERO)
    output: float = key(0.0, help="of output", range=FROM_ZERO)
    cached_input: Optional[float] = key(None, help="of cached input; null: as other input", range=FROM_ZERO)


@dataclass
class PoolSettings:
    """The servers behind a model of provider `vllm` or `simulated`; the same name is the same pool."""

    name: str = key("agent", help="the same name is the same servers; agent: those of server", resume=_FREE)
    model: Optional[str] = key(None, help="checkpoint or hub id to serve; null: the model's own `model`", path=True)
    num: int = key(1, help="replicas", range=COUNT, resume=_FREE)
    tensor_parallel_size: int = key(1, help="GPUs of a replica", range=COUNT, resume=_FREE)
    tool_call_parser: Optional[str] = key(None, help="as server.tool_call_parser", resume=_FREE)
    extra_args: str = key("", help="any vllm serve flags, as one string", resume=_FREE)
    endpoints: list[str] = key(factory=list, help="URLs of servers that run already: nothing is launched", resume=_FREE)
    model_config: Optional[str] = key(
        None, help="as server.model_config, in place of endpoints", path=True, resume=_FREE
    )
    api_key_env: Optional[str] = key(None, help="the variable that holds their key", resume=_FREE)
    api_key_file: Optional[str] = key(None, help="a file that holds it", path=True, resume=_FREE)
    basic_auth_env: Optional[str] = key(None, help="the variable that holds their name:password", resume=_FREE)


@dataclass
class LifetimeSettings:
    """How long a remote model can be asked, as its provider announced it."""

    model: Optional[str] = key(None, help="which model this is about; for another one it says nothing")
    ends: Optional[str] = key(None, help="the day of the shutdown (2026-12-11), or `none announced`")
    successor: Optional[str] = key(None, help="what the provider names in its place: a file of conf/llm/")
    looked: Optional[str] = key(None, help="the day on which somebody looked it up")
    source: Optional[str] = key(None, help="where")


@dataclass
class ModelSettings:
    """One model: where it is, what is sent with each request, what it costs."""

    provider: Provider = key(Provider.openai, help="vllm, simulated, openai, anthropic or litellm")
    model: Optional[str] = key(
        None, help="the name that the provider knows it by, or a checkpoint", path=True, shown="the group's"
    )
    base_url: Optional[str] = key(None, help="another OpenAI-compatible URL")
    api_key_env: Optional[str] = key(
        None, help="the variable that holds the key; null: the provider's usual one", resume=_FREE
    )
    basic_auth_env: Optional[str] = key(
        None, help="with base_url: the variable that holds name:password for it", resume=_FREE
    )
    temperature: Optional[float] = key(
        1.0, help="null: not sent (reasoning models refuse it)", range=Range(0, 2), shown="the group's"
    )
    top_p: Optional[float] = key(None, help="null: not sent", range=Range(0, 1, above=True))
    max_output_tokens: Optional[int] = key(16384, help="tokens of an answer; null: not sent", range=COUNT)
    max_context_tokens: Optional[int] = key(
        None, help="tokens of history, tools and answer together; null: what the server itself allows", range=COUNT
    )
    reasoning_effort: Optional[str] = key(None, help="as the provider names it; null: not sent")
    sends_seed: bool = key(True, help="whether the provider takes a seed")
    max_tokens_key: str = key(
        "max_tokens",
        help="max_tokens or max_completion_tokens, whichever the provider asks for",
        among=("max_tokens", "max_completion_tokens"),
        resume=_FREE,
        shown="the group's",
    )
    extra_body: dict[str, Any] = key(
        factory=dict, help="more keys of the request body, added with a plus: +user_llm.extra_body.top_k=20"
    )
    api: Api = key(Api.chat, help="of provider openai: chat or responses", added=True)
    thinking_history: ThinkingHistory = key(
        ThinkingHistory.none,
        help="what it thought is sent back: none, turn (while it calls tools) or all",
        added=True,
    )
    price: Optional[PriceSettings] = key(
        None,
        help="USD per million tokens; null: the table of data/prices/, of servers of this run 0",
        packed=True,
        resume=_FREE,
    )
    pool: Optional[PoolSettings] = key(
        None, help="the servers of provider vllm or simulated, of this run or running already", packed=True
    )
    lifetime: Optional[LifetimeSettings] = key(
        None, help="until when it can be asked; null: not known, or one's own", packed=True, resume=_FREE
    )


@dataclass
class ProviderSettings:
    """How hard a paid provider may be asked."""

    max_in_flight: Optional[int] = key(
        None,
        help="requests at once; below it 429s decide; null: 10 with max_concurrency=auto, else as simulations ask",
        range=COUNT,
        resume=_FREE,
    )


@dataclass
class ProvidersSettings:
    """Limits of the providers that are not servers of this run."""

    openai: ProviderSettings = key(factory=ProviderSettings, help="of provider openai", resume=_FREE)
    anthropic: ProviderSettings = key(factory=ProviderSettings, help="of provider anthropic", resume=_FREE)
    litellm: ProviderSettings = key(factory=ProviderSettings, help="of each one behind litellm", resume=_FREE)
