"""Engines to read and to copy, written on the public API alone, and the order flow that the demo feeds them.

``exchange:Book`` (price-time priority), ``exchange:Exchange`` (the same with accounts and holds), ``ledger:Ledger``
(double entry), ``feed_book:FeedBook`` (a book kept from an exchange's feed).  ``workloads`` opens the demo's inputs.
"""
