"""Names as they can be shown: a class or a file may be called anything, and no part of it is to act on a terminal."""


def printable(text: str) -> str:
    """The text, of which line breaks, control characters and halves of letters are spelled out, as ``repr`` does."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
