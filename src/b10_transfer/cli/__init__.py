"""The command ``b10-compile-cache``: one module for each subcommand, imported when it is used."""
