"""Comparing engines fairly: the same machine, the same minute, the same input."""
