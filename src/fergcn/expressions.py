"""The expression vocabulary, in the one order used everywhere, and the error that users see."""

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
"""All expressions. A dataset uses a subset, always in this order."""


class FergcnError(Exception):
    """An error the user can act on.

    The message says what was found, what was expected and what to do, in one line. The command
    line prints it without a traceback.
    """


def sort_expressions(names: set[str]) -> tuple[str, ...]:
    """Bring expression names into the order of `EXPRESSIONS`.

    Raises:
        FergcnError: a name is not an expression.
    """
    if unknown := names - set(EXPRESSIONS):
        raise FergcnError(
            f"found the expression {', '.join(sorted(unknown))}, expected one of "
            f"{', '.join(EXPRESSIONS)}: rename the label"
        )
    return tuple(name for name in EXPRESSIONS if name in names)
