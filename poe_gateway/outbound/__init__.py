"""The way out: which addresses the gateway may connect to when somebody else named them."""
