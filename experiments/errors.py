"""The errors whose message is for the user: one line that says what to do, no traceback."""


class UserError(Exception):
    """The command line, the configuration or the data named by it is wrong; exit code 2."""


class RunError(Exception):
    """A run that started well cannot go on; exit code 1."""


class Interrupted(BaseException):
    """A run was asked to stop, and has saved what it needs to go on; exit code 0.

    As a KeyboardInterrupt it comes at any place, so it is no Exception, which code on its way might take for its own.
    """
