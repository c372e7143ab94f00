"""Problems, the evaluation loop, statistics and the ledger. Taught in ch03."""
