"""What the zoo's engines have in common: a feed book that tags orders, an exchange that takes fees, a book without tables."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

from recovery import Command, Context, Reject, Table
from recovery.examples.exchange import Exchange, Order
from recovery.examples.feed_book import FeedBook

VENUES = ("amsterdam", "bergen", "cadiz", "dublin", "essen", "faro", "genoa", "hamburg")
DESKS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


class Tag(NamedTuple):
    """What is noted of an order: something said, and something counted."""

    text: str
    number: int


class Tagging(FeedBook):
    """Tags each order that is created, after the book has filled."""

    tags = Table(int, Tag)
    since = 180
    """Orders of later commands are tagged."""

    def apply(self, context: Context, command: Command) -> Any:
        """The feed's command, and the tag."""
        response = super().apply(context, command)
        if command.type == "created" and context.command_id > self.since:
            self.tags[command.data["order_id"]] = self.tag(context, command)
        elif command.type == "deleted":
            self.tags.pop(command.data["order_id"], None)
        return response

    def tag(self, context: Context, command: Command) -> Tag:
        """What is noted of an order that was just created."""
        return Tag(VENUES[0], 0)


class Paid(NamedTuple):
    """What an account has paid, and for how many fills."""

    fees: Any
    fills: int


class FeeTaking(Exchange):
    """Takes a fee for each fill, from the buyer."""

    paid = Table(str, Paid)
    nothing: Any = Decimal(0)

    def _settle(
        self, context: Context, maker_id: int, maker: Order, taker_id: int, taker: Order, quantity: int
    ) -> None:
        super()._settle(context, maker_id, maker, taker_id, taker, quantity)
        old = self.paid.get(taker.owner, Paid(self.nothing, 0))
        fee = self.fee(context, taker.owner, maker.price * quantity)
        self.paid[taker.owner] = Paid(old.fees + fee, old.fills + 1)

    def fee(self, context: Context, owner: str, volume: int) -> Any:
        """The fee of one fill."""
        return Decimal(volume) * Decimal("0.0025")


class PlainBook:
    """The feed's book as an engine without tables: an order is a list of side, cents and satoshi."""

    name = "plain_book"

    def __init__(self) -> None:
        self.orders: dict[int, list[Any]] = {}
        self.changes = 0

    def apply(self, context: Context, command: Command) -> Any:
        """The order's new state, or its end; the answer is how many orders there are."""
        data = command.data
        order_id = data["order_id"]
        if command.type == "deleted":
            if order_id not in self.orders:
                raise Reject("unknown_order", str(order_id))
            del self.orders[order_id]
        else:
            self.orders[order_id] = [data["side"], data["cents"], data["satoshi"]]
            if data["satoshi"] < 0:
                raise ValueError("less than nothing")
        self.changes += 1
        return self.answer(context, command)

    def answer(self, context: Context, command: Command) -> Any:
        """What is answered."""
        return len(self.orders)

    def capture(self) -> Any:
        """All of it, in order."""
        return {
            "orders": sorted([order_id, *order] for order_id, order in self.orders.items()),
            "changes": self.changes,
        }

    def restore(self, value: Any) -> None:
        """Become what was captured."""
        self.orders = {order_id: order for order_id, *order in value["orders"]}
        self.changes = value["changes"]
