"""Everything that touches Postgres. SQL lives in `sql/*.sql`, schema changes in `migrations/*.sql`."""
