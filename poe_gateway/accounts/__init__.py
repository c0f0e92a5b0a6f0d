"""Verbs on accounts that need credentials or a word with the upstream: the operator's desk and the daily care."""
