"""Access to PostgreSQL: pool, transactions, numbered migrations."""
