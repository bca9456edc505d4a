"""The end of a pipe at which a contender's process answers; `turns.ContenderProcess` is the other end."""

import json
import os
import sys


def serve_standard_input(serve):
    """Answers the lines of the standard input on the standard output, until the input ends.

    What a framework prints goes to the standard error.

    Args:
        serve: function of an iterator over lines and of a function that takes an answer, a dictionary.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(values):
        print(json.dumps(values), file=answers, flush=True)

    serve(iter(sys.stdin.readline, ""), answer)
