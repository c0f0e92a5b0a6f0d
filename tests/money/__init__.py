"""Proofs about money: budgets, limits and the ledger under load, over several gateways that are killed."""
