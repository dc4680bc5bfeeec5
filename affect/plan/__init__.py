"""Planning of extraction: addresses of features, clips and their keys, missing clips."""
