"""Takes off a text what a chat template puts around a turn, where a server did not stop at the turn's end.

`llm.examine` calls it for every reply. What stands behind the end of a turn is what the model makes up of the next one:
the other side's words, too, and a stop token in them.
"""

from __future__ import annotations

import re

BESIDE_TURN = "beside its turn:"
"""How the detail of a reply begins that held more than one."""

_OVER = (
    r"<\|(?:im_end|eot_id|eom_id|eot|eom|end_of_text|endoftext|end_of_turn|endofturn|end|return|role_end|end_message"
    r"|message_sep|END_OF_TURN_TOKEN|END_RESPONSE|END_TEXT|content_model_end_sampling)\|>|<｜end▁of▁sentence｜>"
    r"|<end_of_turn>|<end_of_utterance>|<turn\|>|<eos>|<seed:eos>|\[\|endofturn\|\]"
    r"|<\|close\|>\s*(?:response|message)\s*<\|sep\|>"
)
_OWN = (
    r"<\|im_start\|>\s*assistant\b|<\|(?:start_header_id|header_start)\|>\s*assistant\s*<\|(?:end_header_id|header_end)\|>"
    r"|<\|(?:assistant|begin_of_text|message_model|content_text|START_RESPONSE|START_TEXT|CHATBOT_TOKEN)\|>"
    r"|<｜(?:Assistant|begin▁of▁sentence)｜>|<start_of_turn>\s*model\b|<\|turn>\s*model\b|<bos>|<seed:bos>"
    r"|<role>ASSISTANT</role>|\[\|assistant\|\]|<\|start_of_role\|>\s*assistant\s*<\|end_of_role\|>|\[gMASK\]<sop>"
    r"|<\|open\|>\s*(?:response|message)\s*<\|sep\|>|<assistant>"
    r"|(?:<\|start\|>\s*assistant\s*(?:to=user)?|to=user)<\|message\|>"
)
_BEGINS = re.compile(rf"(?:\s*(?:{_OWN}|{_OVER}|</s>|<s>))+\s*")
"""The beginning of its own turn, and what ended the one before."""
_ENDS = re.compile(
    rf"{_OVER}|</s>|<\|(?:im_start|start_header_id|header_start|user|observation|system|start_of_role)\|>"
    r"|<｜(?:User|Assistant)｜>|<start_of_turn>|<\|turn>|<role>|\[\|(?:user|system|assistant)\|\]|</assistant>"
    # special tokens that were taken off leave the next role on a line of its own
    r"|\[/?INST\]|\n(?:user|assistant)\n|(?<=[.!?])(?:user|assistant)\n\n"
)


def own_turn(text: str) -> tuple[str, str, str] | None:
    """What a text says up to the end of its turn, what stands behind that, and what ended it; None: all of it is one.

    The second and the third are empty where only something before the turn was taken off.
    """
    if not ("<" in text or "[" in text or "user\n" in text or "assistant\n" in text):
        return None
    begun = _BEGINS.match(text)
    if begun is not None and "<s>" in begun.group() and "</s>" in text:  # struck out, as in HTML
        begun = None
    start = 0 if begun is None else begun.end()
    over = _ENDS.search(text, start)
    while over is not None and over.group() == "</s>" and "<s>" in text[start : over.start()]:
        over = _ENDS.search(text, over.end())
    if over is None:
        return None if begun is None else (text[start:], "", begun.group().strip()[:80])
    return text[start : over.start()].rstrip(), text[over.end() :], over.group().strip()
