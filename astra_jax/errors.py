"""The exceptions that the command line turns into one line and an exit code."""


class InputError(ValueError):
    """A caller's mistake: what was given, what was expected, what to do.

    Everything that a person can get wrong (a flag, a file, a folder, a character) raises this
    class, so that a script can print the message alone, while a fault of the program itself
    still shows its traceback.
    """


class DivergedError(ArithmeticError):
    """A loss is no longer a finite number."""
