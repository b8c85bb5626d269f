"""Log lines: which request they belong to, where they go, and what must not be in them.

`context` says which request the code is running for, `format` how a line looks, `redact` what is struck out of it,
`setup` where lines go. What is worth a line is the business of whoever writes it.
"""
