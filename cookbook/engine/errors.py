"""The one error that a client causes: its text is shown to the user as it is."""


class UserError(ValueError):
    """A request that can't be served: what was wrong, the value seen, what is allowed."""


class NotFoundError(UserError):
    """A named thing (model, checkpoint, sampler) that does not exist."""
