"""What tests share: a PostgreSQL server, databases, clocks, and homeservers within the test's process."""
