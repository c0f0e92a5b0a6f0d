"""What was used and what it cost: prices, the ledger and its spool on disk, traffic and changes for the auditor."""
