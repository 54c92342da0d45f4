"""Notices tool-call markup that a server's parser left in the text: the sign of a parser that does not fit."""

from __future__ import annotations

import logging
import re

logger = logging.getLogger(__name__)

_MARKUP = re.compile(
    r"</?tool_call>|</?tool_calls?_(?:begin|section_begin)\W|<\|tool_calls?(?:_section)?_begin\|>|\[TOOL_CALLS\]"
    r"|<｜tool▁calls?▁begin｜>|</?TOOLCALL>|<\|python_tag\|>|<function=|<function_call>|<\|tool_call\|>"
    r"|<\|channel\|>commentary|<minimax:tool_call>|<\|action_start\|>"
)


def find_markup(text: str | None) -> str | None:
    """The first piece of tool-call markup in a reply's text; None: there is none."""
    found = _MARKUP.search(text) if text and ("<" in text or "[" in text) else None
    return found.group() if found else None


class MarkupWatch:
    """Counts the replies of one model that carry markup, and warns of the first."""

    def __init__(self, model: str, advice: str) -> None:
        """`advice` names the key that sets the parser: `server.tool_call_parser`."""
        self.count = 0
        self._model = model
        self._advice = advice

    def look(self, text: str | None) -> None:
        """Look at the text of a reply to a request that offered tools."""
        markup = find_markup(text)
        if markup is None:
            return
        self.count += 1
        if self.count == 1:
            logger.warning(
                "%s leaves tool-call markup (%s) in its text: its server's tool-call parser does not fit; "
                "set %s (vLLM's --tool-call-parser)",
                self._model,
                markup,
                self._advice,
            )
