"""Make a demo corpus from the command line: `python -m speechbrain_bccmt.demo_corpus OUT`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, fields
from pathlib import Path

from speechbrain_bccmt.demo_corpus.phrases import DemoPhraseSettings, make_phrase_corpus
from speechbrain_bccmt.demo_corpus.sentences import DemoCorpusSettings, make_demo_corpus


def main(arguments: list[str] | None = None) -> int:
    """Make the demo corpus from the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Command-line arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0, or 2 if the corpus cannot be made as requested.
    """
    defaults = {**asdict(DemoPhraseSettings()), **asdict(DemoCorpusSettings()), "phrases": None}
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_bccmt.demo_corpus",
        description="Make a small corpus of synthetic speakers with a trial list: sentences in VoxCeleb's layout, "
        "or, with --phrases, takes of the same phrases by all, for text-dependent verification.",
    )
    parser.add_argument("folder", type=Path, help="where the corpus goes")
    phrase_group = parser.add_argument_group("with --phrases")
    for name, group, meaning in (
        ("speakers", parser, "number of speakers; a quarter is held out for the trials"),
        ("sessions", parser, "sessions of each speaker, each with its own channel"),
        ("utterances", parser, "sentences of each session"),
        ("targets", parser, "target trials at most; four times as many non-targets"),
        ("seed", parser, "seed of everything"),
        ("phrases", phrase_group, "number of phrases"),
        ("takes", phrase_group, "takes of each phrase by each speaker, each with its own channel"),
        ("trials", phrase_group, "trials at most, shared out among the four types"),
    ):
        usual = "" if defaults[name] is None else f" ({defaults[name]})"
        group.add_argument(f"--{name}", type=int, metavar="N", help=meaning + usual)
    options = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    folder = options.pop("folder")
    kind, make = DemoCorpusSettings, make_demo_corpus
    if "phrases" in options:
        kind, make = DemoPhraseSettings, make_phrase_corpus
    try:
        if strange := options.keys() - {field.name for field in fields(kind)}:
            needs = "do not go with --phrases" if "phrases" in options else "need --phrases"
            raise ValueError(f"{' and '.join(f'--{name}' for name in sorted(strange))} {needs}")
        trial_list = make(folder, kind(**options))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"utterances: {folder / 'wav'}\ntrials:     {trial_list}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
