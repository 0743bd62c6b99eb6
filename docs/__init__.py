"""A package only so that `python -m docs.figures` finds the figures."""
