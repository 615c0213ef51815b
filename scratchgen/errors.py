"""The error a person can mend: the command line prints its message as one line and exits with status 2."""


class UserError(Exception):
    """Something outside the program is wrong: a file, an option, a download. The message says what to do."""
