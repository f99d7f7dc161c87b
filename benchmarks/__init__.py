"""How fast Astra is, beside others that do the same work, and beside what the machine can do."""
