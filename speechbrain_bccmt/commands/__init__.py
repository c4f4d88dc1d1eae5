"""The commands of `bccmt`, one module per command and named after it."""
