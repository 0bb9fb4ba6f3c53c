"""A level-3 book (every order by its id) kept from an exchange's feed, such as the half hour in bitstamp.py.

The feed tells what became of an order: ``created``, ``changed``, ``deleted``, each with the order's price and the volume
that is left.  Prices are whole cents and volumes whole satoshi (1e-8), which is all the exchange's own precision: integers
are exact, have one form for one amount (1.5 and 1.50 are two Decimals), and are the fastest to compare, encode and hash.

Feeds are odd, and the book takes the exchange's word for what it can know:

- Orders that rested before anyone listened are the recorder's to create, from a snapshot, before the first message.
- ``deleted`` for an id that was never created is rejected as ``unknown_order``, and recorded as that.  The half hour has 13.
- ``changed`` for such an id says all there is to say about an order, so the order is in the book from then on.  It has none.
- ``created`` for an id in the book is a repetition, and rejected as ``duplicate_order``: what became of the order since
  is the later word.  It has none.
- ``changed`` may move the price, even the side; the row counts as it stands.  A market order is a created bid at
  999,999,999 dollars which is then changed downwards, trade by trade, to the prices it was filled at.
- Volume may be zero before the order is deleted, and grow again.  Only ``deleted`` ends an order, by its id alone: the
  price that comes with it may be that of the last trade.
- The book can be crossed for a moment, between the messages of one match.
- Messages count in the order of their arrival; no clock is looked at, the exchange's own included.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from recovery import Context, Index, Reject, Table, TableEngine, command

BID: Final = "bid"
ASK: Final = "ask"


class FeedOrder(NamedTuple):
    """An order as the feed last told it."""

    side: str
    cents: int
    satoshi: int


Best = tuple[int | None, int | None]


class FeedBook(TableEngine):
    """The orders in the book.  Each command answers with the best bid and ask after it, in cents, or None."""

    name = "feed_book"

    orders = Table(int, FeedOrder)
    bids = Index(orders, key=lambda _, order: -order.cents if order.side == BID else None)
    asks = Index(orders, key=lambda _, order: order.cents if order.side == ASK else None)

    @command
    def created(self, context: Context, order_id: int, side: str, cents: int, satoshi: int) -> Best:
        """An order came into the book."""
        if order_id in self.orders:
            raise Reject("duplicate_order", str(order_id))
        return self._tell(context, order_id, _order(side, cents, satoshi))

    @command
    def changed(self, context: Context, order_id: int, side: str, cents: int, satoshi: int) -> Best:
        """An order is now this."""
        return self._tell(context, order_id, _order(side, cents, satoshi))

    @command
    def deleted(self, context: Context, order_id: int) -> Best:
        """An order is no longer in the book."""
        if order_id not in self.orders:
            raise Reject("unknown_order", str(order_id))
        return self._tell(context, order_id, None)

    def best(self) -> Best:
        """The highest bid and the lowest ask, in cents; None for a side that is empty."""
        bid, ask = self.bids.first(), self.asks.first()
        return (
            None if bid is None else self.orders[bid].cents,
            None if ask is None else self.orders[ask].cents,
        )

    def _tell(self, context: Context, order_id: int, order: FeedOrder | None) -> Best:
        before = self.best()
        if order is None:
            del self.orders[order_id]
        else:
            self.orders[order_id] = order
        after = self.best()
        if after != before:
            context.emit("BestChanged", after)
        return after


def _order(side: str, cents: int, satoshi: int) -> FeedOrder:
    if side not in (BID, ASK) or cents < 0 or satoshi < 0:
        raise Reject("bad_order", f"{side} {satoshi} satoshi at {cents} cents")
    return FeedOrder(side, cents, satoshi)
