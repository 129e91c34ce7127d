"""The errors whose text is written for the user."""


class StratumError(Exception):
    """A fault the user can act on: its text says what is wrong, where, and what to do.

    The command line prints the text alone and exits with code 1; a task fails with it at once, since
    trying again would not help. Anything else that is raised is a defect of ours and keeps its traceback.
    """


class TransientError(StratumError):
    """The same, where trying again may help: a server that is down, a lock that is held."""
