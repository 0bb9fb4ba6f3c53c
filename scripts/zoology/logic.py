"""Engines whose code has changed since the record: each is the example, or a base of this zoo, with one rule otherwise."""

from __future__ import annotations

import functools
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

from recovery import Command, Context, Reject, Table, TableEngine
from recovery.examples.exchange import BUY, TRADED, Exchange, Order, Report
from recovery.examples.feed_book import FeedBook, FeedOrder
from zoology.bases import FeeTaking, PlainBook, Tag, Tagging
from zoology.specimen import EXCHANGE, FEED, LONG, World, specimen

EXAMPLE = "recovery.examples.exchange:Exchange"
FEED_BOOK = "recovery.examples.feed_book:FeedBook"
ALONE = ("--explain-s", "0")
"""The cause is told from the record alone: what the experiments say of changed logic is seen at the others."""
studied = functools.partial(specimen, flow=EXCHANGE, cause="logic changed", recorded_engine=EXAMPLE)
studied_feed = functools.partial(specimen, flow=FEED, cause="logic changed", recorded_engine=FEED_BOOK)
changed = functools.partial(studied, replay=ALONE)
changed_feed = functools.partial(studied_feed, replay=ALONE)
SAME_REVISION = {"recorded": World({"RECOVERY_REVISION": "r1"}), "replayed": World({"RECOVERY_REVISION": "r1"})}


class _Meeting(Exchange):
    """Matches as the example does, but what meets is asked of ``meets``."""

    def meets(self, maker: Order, taker: Order) -> bool:
        """Whether two orders trade."""
        return maker.price <= taker.price if taker.side == BUY else maker.price >= taker.price

    def _match(self, context: Context, taker_id: int, taker: Order, reports: list[Report]) -> int:
        queue = self.asks if taker.side == BUY else self.bids
        left = taker.quantity
        while left:
            maker_id = queue.first()
            if maker_id is None or not self.meets(self.orders[maker_id], taker):
                break
            maker = self.orders[maker_id]
            quantity = min(left, maker.quantity)
            left -= quantity
            if quantity == maker.quantity:
                del self.orders[maker_id]
            else:
                self.orders[maker_id] = maker._replace(quantity=maker.quantity - quantity)
            reports.append((TRADED, maker.price, quantity, maker_id, taker_id))
            self._settle(context, maker_id, maker, taker_id, taker, quantity)
        return left


@studied("trades only at a better price, not at an equal one")
class OffByOne(_Meeting):
    def meets(self, maker: Order, taker: Order) -> bool:
        return maker.price < taker.price if taker.side == BUY else maker.price > taker.price


@studied("the same rule changed, under the same version and revision", cause="unknown", **SAME_REVISION)
class SameRevision(_Meeting):
    def meets(self, maker: Order, taker: Order) -> bool:
        return maker.price < taker.price if taker.side == BUY else maker.price > taker.price


@changed("an order that has waited for long is no longer met")
class WaitedTooLong(_Meeting):
    def meets(self, maker: Order, taker: Order) -> bool:
        return taker.arrival - maker.arrival < 40 and super().meets(maker, taker)


class RoundsToEven(FeeTaking):
    """Fees to the cent, halves to even."""

    rounding = ROUND_HALF_EVEN

    def fee(self, context: Context, owner: str, volume: int) -> Any:
        return (Decimal(volume) / 8).quantize(Decimal("0.1"), rounding=self.rounding)


@changed(
    "rounds halves up, no longer to even",
    recorded_engine="zoology.logic:RoundsToEven",
    recorded=World({"RECOVERY_REVISION": "r1"}),
    replayed=World({"RECOVERY_REVISION": "r2"}),
)
class RoundsUp(RoundsToEven):
    rounding = ROUND_HALF_UP


@studied("tells fills before trades", cause=("order only", "logic changed"))
class EventOrder(Exchange):
    def _settle(
        self, context: Context, maker_id: int, maker: Order, taker_id: int, taker: Order, quantity: int
    ) -> None:
        super()._settle(context, maker_id, maker, taker_id, taker, quantity)
        context.events.reverse()


@changed("tells only the first of several fills")
class EventsDropped(Exchange):
    def _settle(
        self, context: Context, maker_id: int, maker: Order, taker_id: int, taker: Order, quantity: int
    ) -> None:
        super()._settle(context, maker_id, maker, taker_id, taker, quantity)
        del context.events[2:]


@changed("keys an event by the order, no longer by the owner")
class EventKey(Exchange):
    def apply(self, context: Context, command: Command) -> Any:
        response = super().apply(context, command)
        context.events[:] = [
            event._replace(key=f"{event.data['order_id']}") if event.key else event for event in context.events
        ]
        return response


@studied_feed("answers with the best ask first", cause=("order only", "logic changed"))
class AnswerTurned(FeedBook):
    def apply(self, context: Context, command: Command) -> Any:
        bid, ask = super().apply(context, command)
        return (ask, bid) if context.command_id > 250 else (bid, ask)


@changed_feed("answers with a list where it was a tuple")
class AnswerAsList(FeedBook):
    def apply(self, context: Context, command: Command) -> Any:
        return list(super().apply(context, command))


@studied_feed("keeps satoshi as a float")
class FloatForInt(FeedBook):
    def _tell(self, context: Context, order_id: int, order: FeedOrder | None) -> Any:
        if order is not None and order.satoshi > 10**7:
            order = order._replace(satoshi=float(order.satoshi))  # type: ignore[arg-type]
        return super()._tell(context, order_id, order)


@changed("marks a quantity of one as True")
class BoolForInt(Exchange):
    def apply(self, context: Context, command: Command) -> Any:
        response = super().apply(context, command)
        order_id = command.data.get("order_id")
        if order_id in self.orders and self.orders[order_id].quantity == 1:
            self.orders[order_id] = self.orders[order_id]._replace(quantity=True)
        return response


@changed("keeps a Decimal without the zeros at its end", recorded_engine="zoology.bases:FeeTaking")
class DecimalExponent(FeeTaking):
    def fee(self, context: Context, owner: str, volume: int) -> Any:
        return super().fee(context, owner, volume).normalize()


@changed("rejects an immediate order that nothing meets")
class RejectsUnfilled(Exchange):
    def apply(self, context: Context, command: Command) -> Any:
        response = super().apply(context, command)
        if command.data.get("ioc") and not context.events:
            raise Reject("unfilled", str(command.data["order_id"]))
        return response


@changed("rejects with another message")
class RejectMessage(Exchange):
    def apply(self, context: Context, command: Command) -> Any:
        try:
            return super().apply(context, command)
        except Reject as reject:
            raise Reject(reject.code, f"order {reject.message}") from None


@changed("accepts what was rejected: an order for an unknown id is cancelled without a word")
class AcceptsUnknown(Exchange):
    def apply(self, context: Context, command: Command) -> Any:
        try:
            return super().apply(context, command)
        except Reject as reject:
            if reject.code == "cancel_rejected":
                return ()
            raise


@studied_feed("raises where it found nothing wrong before")
class Raises(FeedBook):
    def apply(self, context: Context, command: Command) -> Any:
        if command.type == "created" and context.command_id > 200:
            raise OverflowError("too much")
        return super().apply(context, command)


@changed_feed("takes an order of no volume out of the book")
class DropsEmpty(FeedBook):
    def apply(self, context: Context, command: Command) -> Any:
        if command.type == "deleted" and command.data["order_id"] not in self.orders:
            return self.best()
        response = super().apply(context, command)
        for order_id, order in list(self.orders.items()):
            if order.satoshi < 10**6 and context.command_id > 200:
                del self.orders[order_id]
        return response


@changed_feed("keeps a deleted order with no volume")
class KeepsDeleted(FeedBook):
    def apply(self, context: Context, command: Command) -> Any:
        before = self.orders.get(command.data["order_id"])
        response = super().apply(context, command)
        if command.type == "deleted" and before is not None and context.command_id > 200:
            self.orders[command.data["order_id"]] = before._replace(satoshi=0)
        return response


class DatedOrder(NamedTuple):
    """An order with a field more."""

    side: str
    cents: int
    satoshi: int
    since: int


@studied_feed("has a field more in its rows")
class FieldAdded(TableEngine):
    name = "feed_book"
    orders = Table(int, DatedOrder)

    def apply(self, context: Context, command: Command) -> Any:
        data = command.data
        if command.type == "deleted":
            if data["order_id"] not in self.orders:
                raise Reject("unknown_order", str(data["order_id"]))
            del self.orders[data["order_id"]]
        else:
            self.orders[data["order_id"]] = DatedOrder(data["side"], data["cents"], data["satoshi"], context.now_ms)
        return None


@changed_feed("writes a table more")
class TableAdded(Tagging):
    since = 200


@studied("forgets the old rules of an older version")
class OldRulesForgotten(Exchange):
    logic_version = 2
    replays_from = 1

    def deposit(self, context: Context, account: str, cash: int = 0, lots: int = 0) -> Any:
        """Takes one for itself, since version 2; and, wrongly, before."""
        return self._move(account, cash - (context.command_id > 300), lots)

    deposit.__dict__["_is_command"] = True


@changed("trades an order's hidden tenth last", flow=LONG, images=(2_000, 4_000, 6_000), replay=("--jobs", "2", *ALONE))
class InTwoProcesses(_Meeting):
    def meets(self, maker: Order, taker: Order) -> bool:
        return super().meets(maker, taker) and (maker.quantity != 61 or maker.price == taker.price)


# Every divergence, not only the first


@studied(
    "holds one too much for some orders; each is another divergence",
    replay=("--keep-going",),
)
class EveryFew(Exchange):
    def _hold(self, order: Order, *, instead_of: Order | None = None) -> None:
        super()._hold(order, instead_of=instead_of)
        if order.quantity % 16 == 7:
            account = self.accounts[order.owner]
            self.accounts[order.owner] = account._replace(cash_held=account.cash_held + 1)


@changed_feed("tells of some changes twice", replay=("--keep-going", *ALONE))
class TellsTwice(FeedBook):
    def apply(self, context: Context, command: Command) -> Any:
        response = super().apply(context, command)
        if context.events and context.command_id % 3 == 0:
            context.events.append(context.events[-1])
        return response


@changed(
    "settles some trades a lot short, in a history that is verified by two processes",
    flow=LONG,
    images=(2_500, 5_000),
    replay=("--jobs", "2", "--keep-going", *ALONE),
)
class ShortLots(Exchange):
    def _settle(
        self, context: Context, maker_id: int, maker: Order, taker_id: int, taker: Order, quantity: int
    ) -> None:
        super()._settle(context, maker_id, maker, taker_id, taker, quantity)
        if quantity == 37:
            owned = self.accounts[taker.owner]
            self.accounts[taker.owner] = owned._replace(lots=owned.lots - 1)


@specimen(
    "counts one too many, in an engine whose digest is taken every ten commands",
    flow=FEED,
    cause="logic changed",
    recorded_engine="zoology.bases:PlainBook",
    digest_every=10,
    replay=ALONE,
)
class DigestEveryTen(PlainBook):
    def apply(self, context: Context, command: Command) -> Any:
        response = super().apply(context, command)
        self.changes += context.command_id == 263
        return response


@specimen(
    "counts tags from one", flow=FEED, cause="logic changed", recorded_engine="zoology.bases:Tagging", replay=ALONE
)
class TagsFromOne(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return super().tag(context, command)._replace(number=1)
