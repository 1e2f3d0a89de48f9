"""The one exception that means: the user can mend this."""


class InputError(ValueError):
    """A mistake in what the user gave. Its message says what is wrong and what to do; entry points print only that."""
