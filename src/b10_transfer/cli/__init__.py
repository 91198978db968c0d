"""The command ``b10-compile-cache``: one module for each subcommand, each imported only when it is asked for."""
