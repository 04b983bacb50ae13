"""The one exception that a user is meant to read."""


class JaneoxError(Exception):
    """Bad input, named so that it can be mended: the file, the line, the value, and what to do about it.

    The command line prints its message on one line and exits with status 1; every other exception is a bug.
    """
