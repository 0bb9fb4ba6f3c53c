"""A finding for who was not there: a page, a JUnit file, GitHub's annotations.  Each is made of the ``--json`` document."""
