"""Lets `python -m examples.trainer` find its modules. The other examples are run by their paths."""
