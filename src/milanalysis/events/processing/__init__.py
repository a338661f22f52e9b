"""Samples through a coffea processor into tables: chunks, executors, merging."""
