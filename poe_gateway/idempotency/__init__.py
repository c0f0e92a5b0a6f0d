"""One request, one effect: repetitions with the same Idempotency-Key get the recorded answer."""
