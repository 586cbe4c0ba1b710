"""The expression vocabulary, in the one order used everywhere, and the error that users see."""

import re

EXPRESSIONS = (
    "anger",
    "contempt",
    "disgust",
    "fear",
    "happiness",
    "sadness",
    "surprise",
    "neutral",
)
"""The expressions that most datasets use a subset of, always in this order."""

NOT_SURE = "not sure"
"""The answer where no expression is probable enough."""

SURE_FROM = 0.5
"""Probability from which an answer counts as sure. Measured on pictures of people kept aside: below
it an answer is wrong more often than right (docs/LOG.md)."""


class FergcnError(Exception):
    """An error the user can act on.

    The message says what was found, what was expected and what to do, in one line, whatever the
    names in it hold (`one_line`). The command line prints it without a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Write what can't be printed, such as line breaks in the names of files, as escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def sort_expressions(names: set[str]) -> tuple[str, ...]:
    """Bring expression names into the one order: `EXPRESSIONS`, then others by the alphabet.

    Raises:
        FergcnError: a name is not made of lower-case words.
    """
    for name in sorted(names):
        if not re.fullmatch(r"[a-z]+([ _-][a-z]+)*", name):
            raise FergcnError(
                f"found the expression {name!r}, expected a lower-case word such as "
                f"{', '.join(EXPRESSIONS)}: rename the label"
            )
    return (*(name for name in EXPRESSIONS if name in names), *sorted(names - set(EXPRESSIONS)))
