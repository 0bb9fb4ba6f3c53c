"""Adapters of ``JournalStore``, one database a file.  Only ``journal/urls.py`` names them."""
