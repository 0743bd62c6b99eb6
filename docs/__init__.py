"""A package only so that `python -m docs.figures` and `python -m docs.explorer` find their modules."""
