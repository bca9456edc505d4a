"""Errors whose message is for the user: one line that says what to do, without a traceback."""


class UserError(Exception):
    """The command line, the configuration or the data named by it is wrong; exit code 2."""


class RunError(Exception):
    """A run that started well cannot go on; exit code 1."""


class Interrupted(BaseException):
    """A run was asked to stop, and has saved what it needs to go on; exit code 0.

    Like KeyboardInterrupt it can be raised anywhere, so it is not an Exception, which other code might catch.
    """
