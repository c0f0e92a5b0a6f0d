"""Rates, parallel requests and budgets: exact over all processes, in memory per request."""
