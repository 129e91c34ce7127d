"""The one error type whose text is written for the user."""


class StratumError(Exception):
    """A fault the user can act on: its text says what is wrong, where, and what to do.

    The command line prints the text alone and exits with code 1; anything else that is raised is a
    defect of ours and keeps its traceback.
    """
