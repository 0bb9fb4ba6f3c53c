"""For who writes a store: the suite it must pass (``contract``), the encoding it is held to (``reference``), and SQLite on a
disk of one's own (``apsw_connection``)."""
