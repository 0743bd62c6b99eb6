"""A package only so that `python -m examples.trainer` finds its modules; the other examples are run by their paths."""
