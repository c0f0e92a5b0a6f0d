"""Responses that callers asked to keep, and the conversations that they make up."""
