"""What other servers send: transactions. Server-server API, "Transactions"."""

from __future__ import annotations

from synapse.federation.receiving.transactions import Transactions
from synapse.http.server import RawJson, Request, serves


class TransactionEndpoints:
    """`PUT /send/{txnId}`."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    @serves("federation_send_transaction")
    async def send(self, request: Request, txn_id: str) -> RawJson:
        return RawJson(await self._transactions.receive(request.origin, txn_id, request.body))
