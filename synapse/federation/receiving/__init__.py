"""What other servers send: transactions, the events in them, and the checks that these go through on receipt."""
