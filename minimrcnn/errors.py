"""The one error that is the user's to mend: its message is complete without a traceback."""


class DataError(ValueError):
    """Something read from the user's files, folders or options is wrong.

    The message names the file and the row, says what was found and what was wanted, and how to mend it.
    The command line prints it without a traceback; every other exception is a defect of ours and keeps one.
    """
