"""`python -m speechbrain_bccmt`: the `bccmt` command."""

from speechbrain_bccmt.cli import main

main(prog_name="bccmt")
