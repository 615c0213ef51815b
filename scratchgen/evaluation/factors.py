"""How codes relate to known factors of variation, such as those of ``data.strokes``: disentanglement."""

import numpy as np

from scratchgen.models.labels import one_hot

BINS = 20  # for codes and factors of many values


def mutual_information_gap(codes: np.ndarray, factor: np.ndarray) -> float:
    """How much more one code tells of a factor than any other: at most 1, where one tells all and the others nothing.

        (I(z_1; v) - I(z_2; v)) / H(v),    z_1 and z_2 the two codes that tell most of v

    Codes (n, J), J at least 2, and factors (n,) of more than ``BINS`` values are sorted into ``BINS`` bins: codes into
    bins of equal width, factors into bins of equal numbers. Source: Chen et al. 2018, equation 6, for one factor.
    """
    if codes.shape[1] < 2:
        raise ValueError(f"a gap is between two codes; there is {codes.shape[1]}")
    values, told = _by_rank(factor), []
    entropy = _entropy(np.bincount(values))
    if entropy == 0:
        raise ValueError("the factor is constant")
    for code in codes.T:
        edges = np.histogram_bin_edges(code, BINS)[1:-1]
        joint = np.zeros((BINS, values.max() + 1))
        np.add.at(joint, (np.digitize(code, edges), values), 1)
        told.append(_entropy(joint.sum(axis=1)) + entropy - _entropy(joint))
    second, first = sorted(told)[-2:]
    return (first - second) / entropy


def linear_predictability(codes: np.ndarray, factor: np.ndarray) -> float:
    """R², the share of a factor's variance that a linear function of codes (n, J) predicts.

    The function is fitted by least squares to the first half of the n codes and factors (n,), and R² is over the
    second half: at most 1, and below 0 if it predicts worse than the mean.
    """
    predicted = _predicted(codes, factor)
    rest = factor[-len(predicted) :]
    return float(1 - ((rest - predicted) ** 2).mean() / rest.var())


def linear_accuracy(codes: np.ndarray, labels: np.ndarray) -> float:
    """The share of labels (n,), 0..C-1, that a linear function of codes (n, J) predicts.

    The function is fitted by least squares to one-hot rows for the first half of the codes and labels; the label that
    it predicts is its largest component, and the share is over the second half.
    """
    predicted = _predicted(codes, one_hot(labels, labels.max() + 1, np.float64)).argmax(axis=1)
    return float((predicted == labels[-len(predicted) :]).mean())


def smoothness(pictures: np.ndarray, half_way: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """How much nearer pictures of codes half-way come to images with factors half-way than a cross-fade does.

        1 - E |pictures - half_way|^2 / E |(first + second) / 2 - half_way|^2

    ``pictures`` (n, D) are decoded from the means of the codes of ``first`` and ``second`` (n, D), and ``half_way`` has
    the means of their factors. It is 1 if the decoder moves what the factors move, and 0 if it only fades one image out
    and the other in.
    """
    if np.array_equal(first, second):
        raise ValueError("smoothness is between two images; they are the same")
    errors = [((each.astype(np.float64) - half_way) ** 2).mean() for each in (pictures, (first + second) / 2)]
    return float(1 - errors[0] / errors[1])


def _predicted(codes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What a linear function of codes (n, J), fitted to targets (n, ...) of the first half, predicts of the second."""
    inputs, half = np.column_stack([codes.astype(np.float64), np.ones(len(codes))]), len(codes) // 2
    if half <= codes.shape[1]:
        raise ValueError(
            f"there are {len(codes)} codes of {codes.shape[1]} dimensions; at least {2 * codes.shape[1] + 2} are needed"
        )
    weights = np.linalg.lstsq(inputs[:half], targets[:half].astype(np.float64), rcond=None)[0]
    return inputs[half:] @ weights


def _by_rank(factor: np.ndarray) -> np.ndarray:
    """The factor (n,) as whole numbers from 0: its values if there are few, else bins of equal numbers."""
    values, places = np.unique(factor, return_inverse=True)
    if len(values) <= BINS:
        return places
    return np.digitize(factor, np.quantile(factor, np.arange(1, BINS) / BINS))


def _entropy(counts: np.ndarray) -> float:
    """The entropy of a distribution from counts of any shape, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float((shares * np.log(1 / shares)).sum())
