"""The command line: thin commands over `imagesmith.api`."""
