"""Bytes at rest: files and buckets, the feature store, tables and their schemas."""
