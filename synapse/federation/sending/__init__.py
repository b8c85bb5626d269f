"""Sending to other servers: the duty `federation_sender` (`sender`).

Pure are `audience` (which servers an event is for), `queue` (what goes into a server's next transaction, and what comes
of its fate), `edus` (what is told besides events, and over soon), `fairness` (whose turn it is) and `transaction` (the
bytes). `takeover` follows the events stream, `news` the others; `loading` reads what transactions are made of and
`ledger` notes down how far servers have come, both for many servers at once; `composing` makes transactions, and
`dispatch` has them sent.
"""
