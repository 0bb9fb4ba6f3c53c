"""The child that crash tests kill while it delivers: ``python -m tests.crash.outbox_worker FOLDER JOURNAL``.

Hands every event of the journal of this URL to FOLDER/seen.jsonl, a line each, appended and flushed before the delivery returns.
"""

from __future__ import annotations

import sys

from recovery import Message, Outbox
from recovery.message_lines import line_of

BATCH_MAX = 7


def main(folder: str, journal: str) -> None:
    """Deliver what there is, and say so."""
    with open(f"{folder}/seen.jsonl", "ab", buffering=0) as seen:

        def take(messages: list[Message]) -> None:
            for message in messages:
                seen.write(line_of(message))

        with Outbox(journal, name="mail", deliver_batch=take, batch_max=BATCH_MAX) as outbox:
            outbox.run_once()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
