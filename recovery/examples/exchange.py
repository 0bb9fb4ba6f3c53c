"""An exchange with price-time priority: the bare ``Book``, and ``Exchange``, which adds accounts, holds and fills.

Everything is an integer: prices in ticks, quantities in lots, cash in ticks times lots.  An order's place in the queue is
no list of its own but the sort key of an ``Index``: better price first, then earlier arrival, where arrival is the id of
the command that brought the order there.  What a command did is its response, a tuple of reports::

    (0, side, order_id, price, quantity)        accepted
    (1, price, quantity, maker_id, taker_id)    traded, at the maker's price
    (2, side, order_id, price)                  cancelled: asked for, or the rest of an immediate-or-cancel order
    (3, side, order_id, price, quantity)        modified

A refused cancel or modify is a ``Reject`` with the order's id for its message.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from recovery import Context, Index, Reject, Table, TableEngine, command

BUY: Final = 0
SELL: Final = 1

ACCEPTED: Final = 0
TRADED: Final = 1
CANCELLED: Final = 2
MODIFIED: Final = 3

Report = tuple[int, ...]


class Order(NamedTuple):
    """An order, with the quantity still open.  ``owner`` is an account of the ``Exchange``, blank in a bare ``Book``."""

    side: int
    price: int
    quantity: int
    arrival: int
    owner: str


class Book(TableEngine):
    """Orders and their matching; whose they are, and who pays, is not its business."""

    name = "book"

    orders = Table(int, Order)
    bids = Index(orders, key=lambda _, order: (-order.price, order.arrival) if order.side == BUY else None)
    asks = Index(orders, key=lambda _, order: (order.price, order.arrival) if order.side == SELL else None)

    @command
    def new(
        self, context: Context, order_id: int, side: int, price: int, quantity: int, ioc: bool = False, owner: str = ""
    ) -> tuple[Report, ...]:
        """Trade what can be traded at ``price`` or better; the rest waits in the book, or is cancelled if ``ioc``."""
        if order_id in self.orders:
            raise Reject("duplicate_order", str(order_id))
        order = _order(side, price, quantity, context.command_id, owner)
        self._hold(order)
        reports: list[Report] = [(ACCEPTED, side, order_id, price, quantity)]
        left = self._match(context, order_id, order, reports)
        if left and ioc:
            self._release(order, left)
            reports.append((CANCELLED, side, order_id, price))
        elif left:
            self.orders[order_id] = order if left == quantity else order._replace(quantity=left)
        return tuple(reports)

    @command
    def cancel(self, context: Context, order_id: int) -> tuple[Report, ...]:
        """Take an order out of the book."""
        order = self.orders.get(order_id)
        if order is None:
            raise Reject("cancel_rejected", str(order_id))
        del self.orders[order_id]
        self._release(order, order.quantity)
        return ((CANCELLED, order.side, order_id, order.price),)

    @command
    def modify(self, context: Context, order_id: int, price: int, quantity: int) -> tuple[Report, ...]:
        """Cancel and enter again under the same id: the order may trade, and what is left of it waits at the back."""
        old = self.orders.get(order_id)
        if old is None:
            raise Reject("modify_rejected", str(order_id))
        order = _order(old.side, price, quantity, context.command_id, old.owner)
        self._hold(order, instead_of=old)
        reports: list[Report] = []
        # Its old row may stay meanwhile: an order is matched with the other side only.
        left = self._match(context, order_id, order, reports)
        if left:
            self.orders[order_id] = order if left == quantity else order._replace(quantity=left)
        else:
            del self.orders[order_id]
        reports.append((MODIFIED, order.side, order_id, price, quantity))
        return tuple(reports)

    def _match(self, context: Context, taker_id: int, taker: Order, reports: list[Report]) -> int:
        """Trade with the other side, best price first and oldest first; the quantity that is left."""
        orders = self.orders
        queue = self.asks if taker.side == BUY else self.bids
        left = taker.quantity
        while left:
            maker_id = queue.first()
            if maker_id is None:
                break
            maker = orders[maker_id]
            if maker.price > taker.price if taker.side == BUY else maker.price < taker.price:
                break
            quantity = min(left, maker.quantity)
            left -= quantity
            if quantity == maker.quantity:
                del orders[maker_id]
            else:
                orders[maker_id] = maker._replace(quantity=maker.quantity - quantity)
            reports.append((TRADED, maker.price, quantity, maker_id, taker_id))
            self._settle(context, maker_id, maker, taker_id, taker, quantity)
        return left

    # What a trade and an open order mean for their owners: nothing, in a bare book.

    def _hold(self, order: Order, *, instead_of: Order | None = None) -> None:
        """Set aside what the order could cost, instead of what its old self could; or Reject."""

    def _release(self, order: Order, quantity: int) -> None:
        """Give back what was set aside for this much of the order."""

    def _settle(
        self, context: Context, maker_id: int, maker: Order, taker_id: int, taker: Order, quantity: int
    ) -> None:
        """Exchange the goods of one trade, out of what both had set aside."""
        trade = {"price": maker.price, "quantity": quantity, "maker_id": maker_id, "taker_id": taker_id}
        context.emit("Traded", trade)


class Account(NamedTuple):
    """What somebody owns, and how much of it is set aside for open orders."""

    cash: int
    cash_held: int
    lots: int
    lots_held: int


class Exchange(Book):
    """A book whose orders are paid for: each has an owner, and is entered only if the owner's free cash or lots cover it.

    Cash and lots are neither made nor lost but by ``deposit`` and ``withdraw``, and what an account has set aside is
    exactly what its open orders could cost.  Fills leave as events, by owner: a table of them would only ever grow.
    """

    name = "exchange"

    accounts = Table(str, Account)

    @command
    def deposit(self, context: Context, account: str, cash: int = 0, lots: int = 0) -> dict[str, int]:
        """Bring cash and lots into an account, which is opened by that."""
        if cash < 0 or lots < 0:
            raise Reject("bad_amount", f"cash {cash}, lots {lots}")
        return self._move(account, cash, lots)

    @command
    def withdraw(self, context: Context, account: str, cash: int = 0, lots: int = 0) -> dict[str, int]:
        """Take free cash and lots out of an account."""
        if cash < 0 or lots < 0:
            raise Reject("bad_amount", f"cash {cash}, lots {lots}")
        old = self._account(account)
        if cash > old.cash - old.cash_held:
            raise Reject("insufficient_cash", account)
        if lots > old.lots - old.lots_held:
            raise Reject("insufficient_lots", account)
        return self._move(account, -cash, -lots)

    def _move(self, name: str, cash: int, lots: int) -> dict[str, int]:
        old = self.accounts.get(name) or Account(0, 0, 0, 0)
        account = self.accounts[name] = old._replace(cash=old.cash + cash, lots=old.lots + lots)
        return account._asdict()

    def _account(self, name: str) -> Account:
        account = self.accounts.get(name)
        if account is None:
            raise Reject("unknown_account", name)
        return account

    def _hold(self, order: Order, *, instead_of: Order | None = None) -> None:
        cash, cash_held, lots, lots_held = self._account(order.owner)
        if order.side == BUY:
            cash_held += order.price * order.quantity
            if instead_of is not None:
                cash_held -= instead_of.price * instead_of.quantity
            if cash_held > cash:
                raise Reject("insufficient_cash", order.owner)
        else:
            lots_held += order.quantity
            if instead_of is not None:
                lots_held -= instead_of.quantity
            if lots_held > lots:
                raise Reject("insufficient_lots", order.owner)
        self.accounts[order.owner] = Account(cash, cash_held, lots, lots_held)

    def _release(self, order: Order, quantity: int) -> None:
        cash, cash_held, lots, lots_held = self.accounts[order.owner]
        if order.side == BUY:
            cash_held -= order.price * quantity
        else:
            lots_held -= quantity
        self.accounts[order.owner] = Account(cash, cash_held, lots, lots_held)

    def _settle(
        self, context: Context, maker_id: int, maker: Order, taker_id: int, taker: Order, quantity: int
    ) -> None:
        accounts = self.accounts
        price = maker.price
        buyer, seller = (taker, maker) if taker.side == BUY else (maker, taker)
        # The buyer had set aside its own limit and pays the maker's price: the difference is free again.
        cash, cash_held, lots, lots_held = accounts[buyer.owner]
        accounts[buyer.owner] = Account(
            cash - price * quantity, cash_held - buyer.price * quantity, lots + quantity, lots_held
        )
        # Read only now: buyer and seller may be one account.
        cash, cash_held, lots, lots_held = accounts[seller.owner]
        accounts[seller.owner] = Account(cash + price * quantity, cash_held, lots - quantity, lots_held - quantity)
        for order_id, order in ((maker_id, maker), (taker_id, taker)):
            fill = {"order_id": order_id, "side": order.side, "price": price, "quantity": quantity}
            context.emit("Filled", fill, key=order.owner)


def _order(side: int, price: int, quantity: int, arrival: int, owner: str) -> Order:
    if price <= 0 or quantity <= 0 or (side != BUY and side != SELL):
        raise Reject("bad_order", f"side {side}, price {price}, quantity {quantity}")
    return Order(side, price, quantity, arrival, owner)
