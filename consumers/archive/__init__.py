"""Writes every event into a lake of Parquet files, each event once."""
