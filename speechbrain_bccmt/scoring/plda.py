"""Probabilistic linear discriminant analysis (PLDA): the two-covariance model of length-normed embeddings.

Axes: n embeddings, d size of an embedding, k size after LDA, s speakers, m trials.
"""

from pathlib import Path

import numpy as np
from scipy import linalg

from speechbrain_bccmt.arrays import as_array
from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.scoring.cosine import check_trials
from speechbrain_bccmt.scoring.enrolment import check_models, mean_embeddings
from speechbrain_bccmt.scoring.plda_training import check_speakers, lda_projection, two_covariances

FORMAT = "speechbrain_bccmt PLDA"
VERSION = 1
ENROLMENTS = ("mean_embedding", "by_the_book")
# Rows gathered at once: 16384 trials of size 128 take 34 MB, whatever the length of the list.
TRIALS_PER_BLOCK = 16384


class PLDA:
    """Centring, LDA, length norm and a two-covariance model, whose log-likelihood ratio scores trials.

    An embedding x becomes z = sqrt(k) L(x - mean) / |L(x - mean)| (Garcia-Romero and Espy-Wilson 2011), with
    L from LDA. A speaker is y ~ N(centre, between), an utterance z ~ N(y, within) (Bruemmer and de Villiers
    2010).

    Use `fit` or `load`; the constructor takes the parts.

    Parameters
    ----------
    mean : array_like
        Mean of the embeddings, (d,).
    projection : array_like
        LDA, (d, k): (x - mean) @ projection.
    centre : array_like
        Mean of the speakers after length norm, (k,).
    between : array_like
        Covariance of the speakers, (k, k), positive semi-definite.
    within : array_like
        Covariance of the utterances of a speaker, (k, k), positive definite.
    fitted_on : str
        What it was fitted on.
    n_speakers, n_utterances : int
        Numbers of speakers and utterances that it was fitted on.

    Raises
    ------
    ValueError
        If shapes do not match, a value is NaN or infinite, or `within` is not positive definite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> speakers = np.repeat(np.arange(40), 5)
    >>> embeddings = rng.normal(size=(40, 8))[speakers] + 0.3 * rng.normal(size=(200, 8))
    >>> plda = PLDA.fit(embeddings[:150], speakers[:150], lda_dim=6)
    >>> same, different = plda.scores(embeddings, [150, 150], [151, 199])
    >>> bool(same > 0 > different)
    True
    """

    def __init__(
        self,
        mean,
        projection,
        centre,
        between,
        within,
        fitted_on: str = "",
        n_speakers: int = 0,
        n_utterances: int = 0,
    ):
        parts = {
            "mean": mean,
            "projection": projection,
            "centre": centre,
            "between": between,
            "within": within,
        }
        parts = {name: np.array(part, dtype=np.float64) for name, part in parts.items()}
        size, reduced = parts["projection"].shape if parts["projection"].ndim == 2 else (-1, -1)
        square = (reduced, reduced)
        shapes = {"mean": (size,), "centre": (reduced,), "between": square, "within": square}
        for name, part in parts.items():
            if part.shape != shapes.get(name, (size, reduced)):
                raise ValueError(
                    f"{name} of the PLDA has shape {part.shape}, which does not fit the projection's "
                    f"{parts['projection'].shape}"
                )
            if not np.isfinite(part).all():
                raise ValueError(f"{name} of the PLDA holds NaN or infinite values")
        self.mean, self.projection, self.centre = parts["mean"], parts["projection"], parts["centre"]
        self.between, self.within = ((part + part.T) / 2 for part in (parts["between"], parts["within"]))
        self.fitted_on, self.n_speakers, self.n_utterances = (
            str(fitted_on),
            int(n_speakers),
            int(n_utterances),
        )
        # Axes in which both covariances are diagonal, the within-speaker one the identity: all that scoring needs.
        try:
            variances, self._axes = linalg.eigh(self.between, self.within)
        except linalg.LinAlgError as error:
            raise ValueError("the within-speaker covariance of the PLDA is not positive definite") from error
        self._between = variances.clip(min=0.0)

    @classmethod
    def fit(
        cls, embeddings, speakers, lda_dim: int | None = None, n_iterations: int = 20, fitted_on: str = ""
    ) -> "PLDA":
        """Estimate all parts from embeddings of known speakers.

        LDA is solved by scipy's generalised eigenvectors. The two covariances are maximum-likelihood estimates, by the
        EM algorithm of SpeechBrain's `PLDA` with as many speaker factors as dimensions. (SpeechBrain's own `LDA` treats
        a matrix that is not symmetric as symmetric and misses the best directions, and `fast_PLDA_scoring` scores every
        model against every test: neither is used.)

        Parameters
        ----------
        embeddings : array_like
            One embedding for each utterance, (n, d); numpy or torch.
        speakers : sequence
            Speaker of each utterance, (n,): names or numbers.
        lda_dim : int or None
            Dimensions that LDA keeps, at least 2, at most d and at most the number of speakers minus one. None keeps
            all: LDA then only whitens the within-speaker covariance.
        n_iterations : int
            EM iterations, at least 1.
        fitted_on : str
            Name of the corpus, kept with the result.

        Returns
        -------
        PLDA
            The model.

        Raises
        ------
        ValueError
            If shapes do not match, an embedding is NaN or infinite, there are fewer than two speakers, no
            speaker has two utterances, there are too few utterances for the size, or `lda_dim` or
            `n_iterations` is out of range.
        """
        embeddings = _check_embeddings(embeddings)
        names, labels, counts = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
        check_speakers(labels, counts, embeddings, n_iterations)
        mean = embeddings.mean(axis=0)
        projection = lda_projection(embeddings - mean, labels, counts, lda_dim)
        normed = _length_norm((embeddings - mean) @ projection)
        centre, between, within = two_covariances(normed, labels, counts, n_iterations)
        return cls(mean, projection, centre, between, within, fitted_on, len(names), len(embeddings))

    def scores(self, embeddings, enrol, test, models=None, enrolment: str = "mean_embedding") -> np.ndarray:
        """Score trials by the log-likelihood ratio of same and different speakers.

        Parameters
        ----------
        embeddings : array_like
            One embedding for each utterance, (n, d); numpy or torch.
        enrol : array_like of int
            Enrolment utterance of each trial as a row of `embeddings`, (m,); with `models`, the model of each trial.
        test : array_like of int
            Test utterance of each trial, (m,).
        models : sequence, optional
            Models enrolled with several utterances: each an `EnrolmentModel`, or rows of `embeddings`.
        enrolment : str
            How a model's utterances are combined. `mean_embedding` averages them after LDA and length norm, scales the
            mean to the same length and treats it as one utterance: the usual choice (Rajan et al. 2014), as utterances
            of one session are less independent than the model assumes. `by_the_book` is the model's exact ratio.

        Returns
        -------
        numpy.ndarray
            Natural-logarithm likelihood ratios by the model, (m,), float64. They are seldom calibrated: see
            `Calibration`.

        Raises
        ------
        ValueError
            If shapes do not match, an index is out of range, a model has no utterance, `enrolment` is unknown, or
            an embedding is NaN, infinite or the mean of all.
        """
        if enrolment not in ENROLMENTS:
            raise ValueError(f"enrolment is '{enrolment}', expected one of {', '.join(ENROLMENTS)}")
        rows = self.transform(embeddings)
        if models is None:
            enrol, test = check_trials(enrol, test, len(rows))
            sides, sizes = rows, np.ones(len(rows), dtype=np.intp)
        else:
            table = check_models(models, len(rows))
            enrol, test = check_trials(enrol, test, len(rows), len(table))
            sides, sizes = mean_embeddings(rows, table), (table >= 0).sum(axis=1)
            if enrolment == "mean_embedding":
                sides, sizes = _length_norm(sides, "model's mean"), np.ones_like(sizes)
        sides, rows = ((part - self.centre) @ self._axes for part in (sides, rows))
        scores = np.empty(len(enrol))
        of_trial = sizes[enrol]
        for size in np.unique(of_trial):
            trials = np.flatnonzero(of_trial == size)
            scores[trials] = self._ratios(sides, rows, enrol[trials], test[trials], int(size))
        return scores

    def transform(self, embeddings) -> np.ndarray:
        """Centre, project and length-norm embeddings, as scoring does.

        Parameters
        ----------
        embeddings : array_like
            (n, d); numpy or torch.

        Returns
        -------
        numpy.ndarray
            (n, k), float64, each of length sqrt(k).

        Raises
        ------
        ValueError
            If the size differs, or an embedding is NaN, infinite or the mean of all.
        """
        embeddings = _check_embeddings(embeddings)
        if embeddings.shape[1] != len(self.mean):
            raise ValueError(
                f"embeddings have size {embeddings.shape[1]}, the PLDA was fitted on size {len(self.mean)}"
            )
        return _length_norm((embeddings - self.mean) @ self.projection)

    def save(self, path: str | Path) -> None:
        """Write the model as npz, atomically.

        Parameters
        ----------
        path : str or Path
            The file, replaced if it exists.
        """
        names = (
            "mean",
            "projection",
            "centre",
            "between",
            "within",
            "fitted_on",
            "n_speakers",
            "n_utterances",
        )
        with temporary_sibling(Path(path)) as temporary:
            with open(temporary, "wb") as file:
                np.savez(
                    file, format=FORMAT, version=VERSION, **{name: getattr(self, name) for name in names}
                )
            temporary.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "PLDA":
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or Path
            The npz file.

        Returns
        -------
        PLDA
            The model.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not a PLDA of this package, is truncated, or its values do not fit.
        """
        with open(path, "rb") as file:  # a missing file is an OSError, all errors below are about its content
            try:
                with np.load(file, allow_pickle=False) as content:
                    parts = {name: content[name] for name in content.files}
            except Exception as error:  # zipfile, zlib and numpy raise many kinds of error for damaged files
                raise ValueError(f"{path} is no PLDA, or is truncated: {error}") from error
        if str(parts.pop("format", "")) != FORMAT:
            raise ValueError(f"{path} is no PLDA: expected an npz with format '{FORMAT}'")
        version = parts.pop("version", None)
        if version is None or version.shape or version != VERSION:
            raise ValueError(
                f"{path} is a PLDA of version {version}, this package reads version {VERSION}: fit it again, "
                "or update the package"
            )
        try:
            return cls(**parts)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    def _ratios(
        self, sides: np.ndarray, rows: np.ndarray, enrol: np.ndarray, test: np.ndarray, size: int
    ) -> np.ndarray:
        """Score trials whose models have `size` utterances each, in the diagonal axes.

        Given the mean e of `size` utterances, the speaker has mean w e and variance v, and a test utterance t variance
        1 + v; without it, mean 0 and variance 1 + b. The difference of the two log-densities is a term of e, a term of
        t, and an inner product.
        """
        between = self._between
        weight = size * between / (1 + size * between)
        known, unknown = 1 + weight / size, 1 + between
        constant = 0.5 * np.log(unknown / known).sum()
        sides = sides * weight
        of_enrol = constant - 0.5 * np.square(sides) @ (1 / known)
        of_test = 0.5 * np.square(rows) @ (1 / unknown - 1 / known)
        sides /= known
        scores = of_enrol[enrol] + of_test[test]
        for start in range(0, len(enrol), TRIALS_PER_BLOCK):
            block = slice(start, start + TRIALS_PER_BLOCK)
            scores[block] += np.einsum("mk,mk->m", sides[enrol[block]], rows[test[block]])
        return scores


def _check_embeddings(embeddings) -> np.ndarray:
    embeddings = as_array(embeddings, np.float64)
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings have shape {embeddings.shape}, expected (number, size)")
    wrong = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {len(embeddings)} embeddings are NaN or infinite, first number {wrong[0]}"
        )
    return embeddings


def _length_norm(rows: np.ndarray, kind: str = "embedding") -> np.ndarray:
    """Scale rows to length sqrt(k), at which each dimension has a variance of about 1."""
    norms = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~(norms > 0))
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {len(rows)} {kind}s have no direction after centring and LDA, first number "
            f"{wrong[0]}"
        )
    return rows * (np.sqrt(rows.shape[1]) / norms)[:, None]
