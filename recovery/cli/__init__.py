"""The command line: one verb a file, each a thin layer over what can be called from Python."""
