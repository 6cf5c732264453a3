"""What deferd costs, beside its peers: `make bench`."""
