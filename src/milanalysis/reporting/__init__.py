"""Results -> pictures, tables, documents."""
