"""Storage: files and buckets, the feature store, tables and their schemas. It needs neither Ray nor torch."""
