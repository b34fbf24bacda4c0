"""The subcommands of `drx-consumer`, one module each; this is where settings are read and errors become exit codes."""
