"""Unmodified modules of other packages, trained and measured; `make test-field` installs the packages and runs them."""
