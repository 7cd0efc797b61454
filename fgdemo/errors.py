"""The one exception that carries a sentence for the person who uses the program."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or a bad environment, told in one sentence that names the thing and the remedy.

    Command lines print it without a traceback and exit with code 2; the app shows it as a message.
    """
