"""Writes a tiny Qwen3 checkpoint that a real vLLM serves on a CPU; `conftest.py` runs it with the Python of vLLM.

Nothing is downloaded or trained: the vocabulary is counted from texts that come with Python, the weights are drawn.
They are arranged so that the model has habits: a reply is a tool call with one probability, `###STOP###` with another,
else a few words of noise, and which of them depends on everything said before, as it would with a real model. A grammar
(structured outputs) then fills the tool call, and strings and numbers in it end soon.

    python tests/vllm/tiny_model.py DIRECTORY --p-tool 0.5     # an agent
    python tests/vllm/tiny_model.py DIRECTORY --p-stop 0.2     # a user

How it works. Three channels of the residual stream are flags that no layer writes or reads: the last token OPENS a
reply, stands WITHIN one, or CLOSES it. They dwarf the other channels, so that normalisation leaves them constant, and
the output head turns each into a table of logits. The other channels carry noise that attention mixes from the whole
context; the head adds a little of it to every word, and a lot of it to the tokens that begin a tool call or a stop.
"""

from __future__ import annotations

import argparse
import json
import math
import pydoc_data.topics
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

PAD, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CALL, CALLED, STOP = "<tool_call>", "</tool_call>", "###STOP###"

OPENS, WITHIN, CLOSES = range(3)
"""The flag channels."""
FLAGS = 3
FLAG_SIZE = 128.0
NEVER = -40.0
"""A logit that sampling does not reach, but a grammar that allows nothing else does."""

ENDINGS = {'"': 0.3, "}": 0.1, ",": 0.05}
"""Weights of the tokens that end a JSON string or number, against 1 for all words together."""

TEMPLATE = """\
{% for message in messages %}
{% if loop.first and tools %}
{{ turn }}system
{% if message.role == "system" %}
{{ message.content }}

{% endif %}
Functions you may call, one JSON schema in a line:
{% for tool in tools %}
{{ tool | tojson }}
{% endfor %}
A call is written as
{{ call }}
{"name": "...", "arguments": {...}}
{{ called }}{{ end }}
{% endif %}
{% if not (loop.first and tools and message.role == "system") %}
{{ turn }}{{ message.role }}
{{ message.content or "" }}
{%- for item in message.tool_calls or [] %}

{{ call }}
{"name": "{{ item.function.name }}", "arguments": {{ item.function.arguments | tojson }}}
{{ called }}
{%- endfor %}
{{ end }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ turn }}assistant
{% endif %}
"""
"""In the form that the `hermes` parser of vLLM reads; a reply begins after the line feed of its head."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How the model answers at temperature 1."""

    p_tool: float
    """Share of replies that begin a tool call."""
    p_stop: float
    """Share of replies that are the stop token of a user."""
    mean_tokens: float = 12.0
    """Length of the other replies."""
    sway: float = 4.0
    """How far the context moves the two shares from reply to reply: the standard deviation of their logits.

    Without it a request with a fixed seed would be answered in the same way at every turn.
    """


def build_tokenizer(vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocabulary` tokens with the chat template; `context` is the longest input in tokens."""
    marks = [CALL, CALLED, STOP]
    records = [
        json.dumps({"name": f"find_{noun}", "arguments": {f"{noun}_id": f"#{noun[0].upper()}{number}"}})
        for noun in ("user", "order", "item", "flight", "reservation", "line", "device", "task")
        for number in range(100)
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 3 - len(marks),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([*pydoc_data.topics.topics.values(), *records], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, TURN, END)])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in marks])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    names = {"turn": TURN, "end": END, "call": CALL, "called": CALLED}
    fast.chat_template = "".join(f"{{% set {name} = '{mark}' %}}" for name, mark in names.items()) + TEMPLATE
    return fast


def build_model(
    tokenizer: PreTrainedTokenizerFast, context: int, hidden: int = 64, layers: int = 4
) -> Qwen3ForCausalLM:
    """A model whose layers mix noise and leave the flag channels alone; its head is still to be written."""
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=context,
            tie_word_embeddings=False,
            dtype="float32",
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    embedding = model.get_input_embeddings().weight
    torch.nn.init.normal_(embedding)
    embedding[:, :FLAGS] = 0.0
    embedding[:, WITHIN] = FLAG_SIZE
    for channel, tokens in ((OPENS, ["Ċ"]), (CLOSES, [CALLED, STOP])):
        for token in tokenizer.convert_tokens_to_ids(tokens):
            embedding[token, :FLAGS] = 0.0
            embedding[token, channel] = FLAG_SIZE
    unit = math.sqrt(
        (FLAG_SIZE**2 + hidden - FLAGS) / hidden
    )  # the norm's divisor, so that noise enters with variance 1
    for layer in model.model.layers:
        layer.self_attn.q_norm.weight.fill_(10.0)  # sharp: through the layers a single other token changes it all
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.fill_(unit)
            norm.weight[:FLAGS] = 0.0
        for output in (layer.self_attn.o_proj, layer.mlp.down_proj):
            output.weight[:FLAGS] = 0.0
    return model


def sample_prompts(tokenizer: PreTrainedTokenizerFast, settings: int, talks: int) -> list[list[torch.Tensor]]:
    """Token ids of prompts as a benchmark sends them: for each of `settings` (system message, tools) some `talks`."""
    dice = random.Random(0)
    texts = list(pydoc_data.topics.topics.values())
    tool = {"type": "function", "function": {"name": "find_order", "parameters": {"type": "object", "properties": {}}}}

    def excerpt(shortest: int, longest: int) -> str:
        text = dice.choice(texts)
        start = dice.randrange(max(1, len(text) - longest))
        return text[start : start + dice.randint(shortest, longest)]

    def talk(system: str, tools: list[dict[str, Any]]) -> torch.Tensor:
        messages = [{"role": "system", "content": system}]
        for turn in range(dice.randint(1, 6)):
            messages.append({"role": "assistant" if turn % 2 else "user", "content": excerpt(20, 150)})
        prompt = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)
        return torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])

    return [
        [talk(system, [tool] * (number % 3)) for _ in range(talks)]
        for number, system in enumerate(excerpt(100, 1200) for _ in range(settings))
    ]


def swayed_directions(noise: torch.Tensor, count: int) -> torch.Tensor:
    """Directions (count × channels) of unit variance in which the talks of one setting differ as much as all talks do.

    `noise` is settings × talks × channels. Along any direction that differs between the settings, the model would
    answer all customers of a shop alike. Fisher's discriminant analysis finds the opposite of what it is used for.
    """
    settings, talks, channels = noise.shape
    within = (noise - noise.mean(dim=1, keepdim=True)).reshape(-1, channels)
    total = (noise - noise.mean(dim=(0, 1))).reshape(-1, channels)
    total_covariance = total.T @ total / (settings * talks)
    total_covariance += 1e-3 * total_covariance.diagonal().mean() * torch.eye(channels)
    whiten = torch.linalg.inv(torch.linalg.cholesky(total_covariance))
    spread = whiten @ (within.T @ within) @ whiten.T
    directions = torch.linalg.eigh(spread).eigenvectors[:, -count:].T @ whiten
    return directions / (total @ directions.T).std(dim=0)[:, None]


def write_head(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, habits: Habits) -> None:
    """Set the last norm and the output head so that the model has these `habits` on sampled conversations."""
    norm, head = model.model.norm.weight, model.get_output_embeddings().weight
    norm.fill_(1.0)
    prompts = sample_prompts(tokenizer, settings=60, talks=4)
    state = torch.stack(
        [torch.cat([model.model(talk).last_hidden_state[:, -1] for talk in talks]) for talks in prompts]
    )
    norm[:FLAGS] = 1 / state[..., OPENS].mean()
    norm[FLAGS:] = 1 / state[..., FLAGS:].std()
    noise = state[..., FLAGS:] * norm[FLAGS:]

    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    words = torch.tensor([bool(text.strip()) and text.isascii() and text.isprintable() for text in texts])
    words[tokenizer.convert_tokens_to_ids([PAD, TURN, END, CALL, CALLED, STOP])] = False
    torch.nn.init.normal_(head, std=head.shape[1] ** -0.5)
    head[:, :FLAGS] = NEVER
    head[words, :FLAGS] = -math.log(int(words.sum())) - 0.5  # e^0.5 is the mean of e^noise: all words together weigh 1
    vocabulary = tokenizer.get_vocab()
    for text, weight in ENDINGS.items():
        token = vocabulary[text]
        head[token, OPENS] = NEVER
        head[token, WITHIN] = math.log(weight)

    end = tokenizer.convert_tokens_to_ids(END)
    head[end] = 0.0
    head[end, OPENS] = NEVER
    head[end, WITHIN] = math.log((1 + sum(ENDINGS.values())) / (habits.mean_tokens - 1))
    head[end, CLOSES] = -NEVER

    begins = tokenizer.convert_tokens_to_ids([CALL, STOP])
    head[begins] = 0.0
    head[begins, :FLAGS] = NEVER
    shares = torch.tensor([habits.p_tool, habits.p_stop])
    directions = habits.sway * swayed_directions(noise, len(begins))
    head[begins, FLAGS:] = torch.where(shares[:, None] > 0, directions, 0.0)
    head[begins, OPENS] = logits_for(shares, noise.flatten(0, 1) @ head[begins, FLAGS:].T)


def logits_for(shares: torch.Tensor, swayed: torch.Tensor) -> torch.Tensor:
    """The logits that give the tokens these mean `shares` over all contexts.

    `swayed` (contexts × tokens) is what each context adds; all other tokens together have the logit 0. Each step moves
    a logit by how far its share is off (iterative proportional fitting).
    """
    logits = torch.zeros_like(shares)
    rest = torch.zeros(swayed.shape[0], 1)
    for _ in range(300):
        reached = torch.softmax(torch.cat([rest, swayed + logits], dim=1), dim=1)[:, 1:].mean(dim=0)
        logits += torch.log(shares.clamp(min=1e-30) / reached)
    return logits.clamp(min=NEVER)


@torch.no_grad()
def write_checkpoint(directory: Path, habits: Habits, vocabulary: int = 2048, context: int = 32768) -> None:
    """Write tokenizer and weights (bfloat16, about a megabyte) to `directory`; the same habits give the same bytes."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(vocabulary, context)
    model = build_model(tokenizer, context)
    write_head(model, tokenizer, habits)
    tokenizer.save_pretrained(directory)
    model.to(torch.bfloat16).save_pretrained(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny checkpoint for vLLM on a CPU.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--p-tool", type=float, default=0.0, help="share of replies that begin a tool call")
    parser.add_argument("--p-stop", type=float, default=0.0, help="share of replies that are ###STOP###")
    options = parser.parse_args()
    write_checkpoint(options.directory, Habits(options.p_tool, options.p_stop))


if __name__ == "__main__":
    main()
