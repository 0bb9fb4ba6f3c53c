"""A double-entry ledger in many currencies: copy it for your wallet.

Money never appears or vanishes: a journal entry moves it between accounts, and its amounts add up to zero in every
currency it touches, so that the balances of a currency always do too.  What enters from outside comes out of an account for the
outside, which may go below zero without limit.

Amounts are ``Decimal`` and nothing is ever rounded: what a currency has no places for, or what 28 digits cannot hold, is
rejected.  Amounts are kept at their currency's full places, so that equal amounts have equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context as DecimalContext
from decimal import Decimal, DecimalException, Inexact, InvalidOperation, Rounded
from typing import Final, NamedTuple

from recovery import Context, Index, Reject, Table, TableEngine, UsageError, command

PLACES_MAX: Final = 18

# Sums lose no digit, not even a zero at the end; an amount given with too many zeros at the end is brought into form.
_EXACT: Final = DecimalContext(prec=28, traps=[Rounded, InvalidOperation])
_IN_FORM: Final = DecimalContext(prec=28, traps=[Inexact, InvalidOperation])
# Room for the balances of a billion billion accounts, for sums that are only looked at.
_WIDE: Final = DecimalContext(prec=46, traps=[Rounded, InvalidOperation])
_ZERO: Final = Decimal(0)


class Account(NamedTuple):
    """``floor`` is the least balance allowed, zero or below; None is without limit."""

    currency: str
    balance: Decimal
    floor: Decimal | None


class Entry(NamedTuple):
    """A posted journal entry: its legs as pairs of account and signed amount.

    ``reverses`` is the entry that this one takes back, ``reversed_by`` the one that takes this back; 0 is none.
    """

    legs: tuple[tuple[str, Decimal], ...]
    memo: str
    posted_ms: int
    reverses: int
    reversed_by: int


class Ledger(TableEngine):
    """Currencies, accounts, and the entries that moved money between them."""

    name = "ledger"

    currencies = Table(str, int)
    accounts = Table(str, Account)
    entries = Table(int, Entry)
    by_currency = Index(accounts, key=lambda _, account: account.currency)
    # Who uses an overdraft, the deepest first in each currency.
    overdrawn = Index(
        accounts,
        key=lambda _, account: (account.currency, account.balance) if account.floor and account.balance < 0 else None,
    )

    @command
    def define_currency(self, context: Context, currency: str, places: int) -> None:
        """A currency, and how many decimal places its amounts have."""
        if currency in self.currencies:
            raise Reject("currency_exists", currency)
        if not 0 <= places <= PLACES_MAX:
            raise Reject("bad_places", f"{places} is not 0 to {PLACES_MAX}")
        self.currencies[currency] = places

    @command
    def open_account(
        self, context: Context, account: str, currency: str, floor: Decimal | None = _ZERO
    ) -> dict[str, Decimal]:
        """An account of one currency.  ``floor``: the least balance it may have; -100 is an overdraft of 100."""
        if account in self.accounts:
            raise Reject("account_exists", account)
        if currency not in self.currencies:
            raise Reject("unknown_currency", currency)
        if floor is not None:
            floor = self._in_places(floor, currency)
            if floor > 0:
                raise Reject("bad_floor", f"{floor} is above zero, where every account begins")
        balance = self._in_places(_ZERO, currency)
        self.accounts[account] = Account(currency, balance, floor)
        return {"balance": balance}

    @command
    def post(self, context: Context, legs: dict[str, Decimal], memo: str = "") -> dict[str, int]:
        """Move money: ``legs`` holds a signed amount for each account, and sums to zero in each currency."""
        for account, amount in legs.items():
            if type(account) is not str or type(amount) is not Decimal:
                raise UsageError(f"a leg is an account's name and a Decimal, not {account!r} and {amount!r}")
        return {"entry": self._post(context, legs.items(), memo, reverses=0)}

    @command
    def reverse(self, context: Context, entry: int, memo: str = "") -> dict[str, int]:
        """Take an entry back, by another with its amounts negated.  Overdraft limits hold here too."""
        old = self.entries.get(entry)
        if old is None:
            raise Reject("unknown_entry", str(entry))
        if old.reversed_by:
            raise Reject("already_reversed", f"{entry}, by {old.reversed_by}")
        if old.reverses:
            raise Reject("is_reversal", f"{entry}, of {old.reverses}; post it anew instead")
        legs = [(account, -amount) for account, amount in old.legs]
        self.entries[entry] = old._replace(reversed_by=context.command_id)
        return {"entry": self._post(context, legs, memo, reverses=entry)}

    # To be asked, as in runtime.query(Ledger.trial_balance)

    def trial_balance(self) -> dict[str, Decimal]:
        """The sum of all balances, by currency: zero for every one, or money was made or lost."""
        sums = dict.fromkeys(self.currencies, _ZERO)
        for account in self.accounts.values():
            sums[account.currency] = _WIDE.add(sums[account.currency], account.balance)
        return sums

    def accounts_in(self, currency: str) -> list[str]:
        """The accounts of a currency, by name."""
        # A currency's code and the next text after it bound exactly the accounts of that currency.
        return list(self.by_currency.range(currency, currency + "\0"))

    # How it is done

    def _post(self, context: Context, legs: Iterable[tuple[str, Decimal]], memo: str, *, reverses: int) -> int:
        # A dict of a command comes in one order, whatever the caller's was: that cannot show in events or rejections.
        booked = tuple(self._book(context, account, amount) for account, amount in legs)
        self._check_balanced(booked)
        entry = context.command_id
        self.entries[entry] = Entry(booked, memo, context.now_ms, reverses, 0)
        return entry

    def _book(self, context: Context, name: str, amount: Decimal) -> tuple[str, Decimal]:
        """Change one balance.  Whatever is rejected, here or after, leaves all accounts as they were."""
        account = self.accounts.get(name)
        if account is None:
            raise Reject("unknown_account", name)
        amount = self._in_places(amount, account.currency)
        if not amount:
            raise Reject("bad_amount", f"nothing is moved on {name}")
        try:
            balance = _EXACT.add(account.balance, amount)
        except DecimalException:
            raise Reject("bad_amount", f"{name} cannot hold {amount} more: it is beyond 28 digits") from None
        if account.floor is not None and balance < account.floor:
            raise Reject("overdraft", f"{name} would come to {balance}, below {account.floor}")
        self.accounts[name] = account._replace(balance=balance)
        context.emit("BalanceChanged", {"account": name, "amount": amount, "balance": balance}, key=name)
        return name, amount

    def _check_balanced(self, legs: tuple[tuple[str, Decimal], ...]) -> None:
        sums: dict[str, Decimal] = {}
        for name, amount in legs:
            currency = self.accounts[name].currency
            sums[currency] = _WIDE.add(sums.get(currency, _ZERO), amount)
        if not sums:
            raise Reject("empty", "an entry without legs moves nothing")
        for currency, total in sorted(sums.items()):
            if total:
                raise Reject("unbalanced", f"the legs in {currency} add up to {total}, not to zero")

    def _in_places(self, amount: Decimal, currency: str) -> Decimal:
        places = self.currencies[currency]
        try:
            return _IN_FORM.quantize(amount, Decimal(1).scaleb(-places))
        except DecimalException:
            raise Reject("bad_amount", f"{amount} {currency} has more than {places} places, or 28 digits") from None
