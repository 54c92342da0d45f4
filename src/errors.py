"""The one exception whose text is shown to people as it is, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do, in one or two lines."""
