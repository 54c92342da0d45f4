"""Words and values in what people say: identifiers, questions, refusals, claims. The rules of `customer` and `agent`
are made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_IDENTIFIER = re.compile(
    r"[\w.+-]+@[\w-]+\.\w[\w.-]*"  # an e-mail address
    r"|#\w{4,}"  # an order
    r"|\b[a-z]+(?:_[a-z]+)*_\d{3,}\b"  # a user, a payment method
    r"|(?<![$\d.,])\b\d(?:[\d-]{3,}\d)\b(?![.,]\d|%)"  # a number of five signs or more: zip, item, phone
    r"|\b(?=[A-Z0-9]*\d)(?=[A-Z0-9]*[A-Z])[A-Z0-9]{5,10}\b",  # a reservation, a flight
    re.ASCII,
)
_DATE = re.compile(r"\d{4}-\d\d(-\d\d)?|\d{1,2}-\d{1,2}-\d{2,4}|(19|20)\d\d-(19|20)?\d\d")
_NOT_PLAIN = re.compile(r"[^0-9a-z]+")
_MARKS = re.compile(r"###[A-Z-]+###")

ASKS = re.compile(
    r"\?|\bplease (?!feel|note|be (?:aware|advised)|accept|visit|contact|allow|keep in mind|don'?t|do not)[a-z]+\b"
    r"|\btell me (?:when|once|if|what|whether|which)\b"
    r"|\b(?:could|can|may|would) you\b|\(yes/no\)|\b(?:reply|say|type|respond)\W+(?:with )?\W?yes\b|\blet me know\b",
    re.I,
)
_CLOSING = re.compile(
    r"[^.!?\n]*\b(?:anything else|any other|further (?:assistance|questions|help)|other (?:questions|requests)"
    r"|something else|have a (?:great|good|nice)|feel free|don't hesitate|help you today|assist you today"
    r"|if you (?:have|need|change|would like|ever|decide|want))[^.!?\n]*[.!?]*",
    re.I,
)
CONFIRMS = re.compile(
    r"\bconfirm|\bproceed\b|\(yes/no\)|\byes\b|\bgo[- ]ahead\b|\bshall i\b|\bshould i\b|\bmay i\b|\bwould you like"
    r"|\bdo you want\b|\b(?:permission|approv|consent|authori[sz]|agree)|\b(?:are you|is (?:that|this|it|everything))"
    r" (?:ok|okay|fine|good|alright|all right|correct|right|with)\b|\b(?:sound|look)s? (?:good|right|correct)\b",
    re.I,
)
_BEFORE = r"^\W*(?:(?:actually|sorry|hmm+|wait|oh|well|um+|thanks|thank you)\b[,.! ]*(?:but )?)*"
REFUSES = re.compile(
    _BEFORE
    + r"(?:no\b(?!\s+(?:problem|worries|rush|need to worry|that is (?:all|correct)))|nope\b|never ?mind\b|stop\b"
    r"|don'?t\b|do not\b|i (?:do not|don'?t|won'?t|will not|would not|refuse)\b"
    r"(?! (?:have|know|remember|recall|see|think|mind|understand))"
    r"|i(?: ha|')?ve changed my mind|i changed my mind|please (?:do not|don'?t)\b|not (?:now|anymore|interested)\b"
    r"|i(?:'d| would) rather not\b|i no longer want\b|let'?s not\b|forget (?:it|about it)\b"
    r"|(?:please )?cancel (?:that|this)\b"
    r"|(?:please )?(?:leave|keep) (?:it|everything|things) as\b)",
    re.I,
)
AGREES = re.compile(
    r"^\W*(?:yes|yeah|yep|sure|ok(?:ay)?|go ahead|please (?:go ahead|proceed)|i confirm|confirmed|correct|that works"
    r"|sounds good|absolutely|of course)\b(?!,? not\b)",
    re.I,
)
DENIES = re.compile(
    r"\b(?:no|nope|nah|not|never|cannot|stop|wait|hold (?:off|on|up)|scratch|skip|declin\w+|refus\w+|against|object"
    r"|changed my mind|(?:drop|cancel) (?:it|that|this)|(?:leave|keep) (?:it|that|this|everything|things))\b|\w+n't\b",
    re.I,
)
"""A word of refusal, anywhere in an answer that is known to be to a question for consent."""
GIVES_IN = re.compile(
    r"(?<!not )(?<!don't )(?<!n't want to )\b(?:yes|yeah|yep|sure|go ahead|proceed|i confirm|sounds good|works for me"
    r"|do it|that'?s (?:fine|ok|okay|correct|right|all)|no (?:problem|worries|issue|rush|objection))\b(?! not\b)",
    re.I,
)
"""Consent, or a farewell, anywhere in an answer."""
WANTS_OTHER = re.compile(
    r"\?|\binstead\b|\bfirst\b|\bhow about\b|\bi(?:'d| would) (?:like|need|want)\b|\bi (?:need|meant)\b"
    r"|\bi(?:'d| would)? prefer\b(?! (?:that you|not|if you didn))|(?<!what )\bi (?:just |only )*want(?:ed)?\b"
    r"|\bplease (?!do not|don'?t|stop|leave|keep|hold|cancel (?:it|that|this)\b)",
    re.I,
)
"""An answer that asks back, or wishes something else."""
DISCLAIMS = re.compile(
    r"\b(?:(?:do not|don'?t|can(?:no|')?t|not) (?:\w+ )?"
    r"(?:remember|recall|know|have (?:that|it|my|the|them|an?|any|those|this)|find|sure)"
    r"|no idea|unsure|forgot|lost it)",
    re.I,
)
_ACTED = (
    "processed|cancell?ed|exchanged|refunded|updated|modified|booked|rebooked|issued|returned|changed|added|removed|sent"
    "|completed|submitted|looked up|pulled up"
)
_ACTS = "process|cancel|exchange|refund|update|book|transfer|look up|modify"
_MATTER = (
    "order|reservation|booking|account|request|return|exchange|refund|cancellation|payment|change|update|line|plan"
)
SPEAKS_AS_AGENT = re.compile(
    r"\bhow (?:can|may) i (?:help|assist) you\b|\bto verify your identity\b"
    rf"|\bi(?:'ve| have) (?:just |now |already |also |successfully )*(?:{_ACTED})(?: \w+){{0,2}}"
    r" (?:your|the customer|for you)\b"
    r"|\banything else (?:that )?i can (?:help|assist|do for) you\b"
    r"|\blet me (?:look up|check|pull up|verify|process|transfer) (?:your|you)\b"
    r"|\bthank you for (?:contacting|calling|reaching out to) (?:us|our|customer)"
    r"|\b(?:could|can|may) you (?:please )?(?:provide|confirm) your\b"
    rf"|\bi(?:'ll| will| am going to) (?:now )?(?:{_ACTS}) (?:your|you\b)"
    r"|\bi(?:'ve| have) (?:gone ahead|taken care)\b"
    rf"|\byour (?:\S+ ){{0,4}}(?:has|have) (?:now |just |already )?been (?:successfully )?(?:{_ACTED})\b"
    rf"|\bi (?:just |already )?(?:{_ACTED}) (?:it|the \w+|my \w+|your \w+) (?:myself|for you|in (?:the|your) system)\b"
    r"|\bas (?:your|a) (?:customer )?(?:service|support) (?:agent|representative)\b"
    r"|\b(?:happy|glad|pleased|delighted|here) to (?:help|assist)\b(?! (?:me|us)\b)"
    r"|\bi (?:can|could|will|would) (?:certainly |definitely |gladly |surely |be able to )*(?:help|assist) you\b"
    rf"|\bi(?:'ll| will|'m going to| am going to) (?:now |proceed to |go ahead and )*(?:{_ACTS}|submit|initiate)\b"
    r"[^.!?\n]*\b(?:for you|your)\b"
    rf"|\bi(?:'ve| have) (?:{_ACTED}) (?:the|this) (?:system|{_MATTER})\b"
    r"|\bi(?:'ve| have) (?:located|found|reviewed|verified|checked|received) your\b"
    rf"|\bi (?:can |do )?see (?:that )?your (?:{_MATTER})\b|\b(?:how )?would you like\b|\bverify you\b"
    r"|\b(?:on our end|our (?:system|records|policy|policies))\b"
    rf"|\bwhat(?:'s| is| are) your (?:{_MATTER}|user|customer|phone|zip|e-?mail|full name|name)\b"
    rf"|\byour (?:\w+ ){{0,2}}(?:{_MATTER})s? (?:is|are|was|were) (?:now )?(?:complete|confirmed|done|{_ACTED})\b"
    r"|\byou(?:'ll| will| should) (?:soon |shortly )?(?:receive|get|see) (?:an?|the|your) (?:\w+ )?"
    r"(?:e-?mail|confirmation|refund|credit|message|text|notification)\b"
    r"|\blet me (?:pull up|look up|look into|bring up|check|verify|process) (?:the|this|that) "
    rf"(?:{_MATTER}|profile|flight)\b(?! (?:number|id|details|confirmation)\b)"
    r"|</?(?:tool_call|function)[^>]*>",
    re.I,
)
ACTS_AS_AGENT = re.compile(
    r"\bi went ahead\b"
    rf"|\bi(?:'ve| have)? (?:just |now |already |also |successfully |gone ahead and )+(?:{_ACTED})\b"
    r" (?:the|this|that|it)\b(?! (?:number|form|e-?mail)\b)",
    re.I,
)
"""Said by a customer that has no tools of its own, and so can have done nothing."""

CLAIMED = {
    "cancel": ("cancel",),
    "exchang": ("exchange", "modify"),
    "return": ("return",),
    "refund": ("refund", "return", "cancel", "certificate", "modify", "exchange", "update"),
    "modif": ("modify", "update", "change", "set", "exchange"),
    "updat": ("update", "modify", "change", "set", "exchange", "cancel", "return", "enable", "disable"),
    "chang": ("change", "modify", "update", "set", "exchange"),
    "rebook": ("book", "update"),
    "book": ("book", "update"),
    "issu": ("certificate", "refund", "send", "return", "cancel", "payment"),
    "enabl": ("enable", "toggle", "set"),
    "disabl": ("disable", "toggle", "set"),
    "suspend": ("suspend",),
    "resum": ("resume",),
}
"""Root of a verb to the parts of names of tools that do it; `process`, `add` and the like stand for any change."""
_DONE = f"({'|'.join((*CLAIMED, 'process', 'complet', 'submitt'))})"
_ADVERBS = r"(?:just |now |already |also |successfully |been |all )*"
CLAIMS = re.compile(
    rf"\bi(?:'ve| have) {_ADVERBS}{_DONE}\w*ed\b"
    rf"|\b(?:your|the) (?:\S+ ){{0,6}}(?:(?:has|have) {_ADVERBS}been|(?:is|are) now) {_ADVERBS}{_DONE}\w*ed\b",
    re.I,
)
"""What an agent says of something that it has done; the root of the verb is in the first or the second group."""
NOT_DONE = re.compile(r"\b(?:once|after|if|when|until|as soon as|not|unless|before|would|cannot|can't)\b", re.I)


PROMISES = re.compile(
    r"\b(?:one|just a|a) moment\b|\bplease (?:wait|hold)\b|\blet me (?!know)"
    r"|\bi(?:'ll| will| am going to| am about to) (?:now )?"
    r"(?:check|look|see|find|process|proceed|go|start|begin|get|pull|review|verify|make|cancel|update|exchange|return|book)",
    re.I,
)
"""An agent that says what it does next has not finished."""


def plain(text: str) -> str:
    """Letters and digits alone, in small letters: `#W123` and `w 123` are the same."""
    return _NOT_PLAIN.sub("", text.lower())


def without_marks(text: str) -> str:
    """A customer's text without `###STOP###` and the like."""
    return _MARKS.sub("", text).strip()


def identifiers(text: str) -> Iterator[str]:
    """What looks like a value that somebody must know: orders, users, zips, e-mails; no dates and no amounts."""
    for found in _IDENTIFIER.finditer(without_marks(text)):
        value = found.group().rstrip(".-")
        if len(plain(value)) >= 4 and not _DATE.fullmatch(value):
            yield value


def awaits(text: str) -> bool:
    """Whether an agent's text waits for an answer, the question whether there is anything else apart."""
    return bool(ASKS.search(without_closing(text)))


def without_closing(text: str) -> str:
    """An agent's text without what it says to whoever has no further wish."""
    return _CLOSING.sub(" ", text)


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value within the arguments of a call, with the name that it stands under."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, str(key))
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part, name)
    elif value is not None and not isinstance(value, bool):
        yield name, value


def says(text: str, value: Any) -> bool:
    """Whether a text holds a value: a longer one wherever it stands, a short one as a word of its own."""
    told = str(value)
    if len(plain(told)) >= 4:
        return plain(told) in plain(text)
    return re.search(rf"(?<![\w.]){re.escape(told.lower())}(?![\w.]*\d)", text.lower()) is not None


def is_telling(name: str, value: Any) -> bool:
    """Whether a value is one that a customer has to give word by word: an identifier or a name."""
    text = str(value)
    if len(plain(text)) < 4:
        return False
    return any(sign.isdigit() for sign in text) or "@" in text or "name" in name
