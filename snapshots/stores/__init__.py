"""The places images can lie in; snapshots/urls.py names them."""
