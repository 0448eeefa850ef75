"""The book, its PDF and its executed notebooks; `make reproduce`, which ends in them."""
