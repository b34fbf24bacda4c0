"""The door to PostgreSQL: pool, transactions, numbered migrations."""
