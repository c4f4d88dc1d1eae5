"""The commands of `bccmt`, one module each: the command has the name of its module."""
