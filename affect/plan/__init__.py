"""Which clips of which videos are to do: addresses of features, keys, what is missing."""
